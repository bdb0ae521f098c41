//! A question at the terminal.

use std::io::Write;

use crate::cli::error::CommandError;

/// Asks on the terminal. Returns `true` for a yes.
pub(crate) fn confirm(question: &str) -> Result<bool, CommandError> {
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{question} [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CommandError::new("cannot read the answer").because(&error))?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
