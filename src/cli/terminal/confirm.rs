//! Questions on the terminal.

use std::io::{IsTerminal, Write};

use crate::cli::{
    error::{CommandError, code},
    terminal::output::Output,
};

/// Requires a terminal to ask on. `purpose` completes "cannot ask ..."; `unasked` is the command that does not ask.
pub(crate) fn require_terminal(purpose: &str, unasked: &str) -> Result<(), CommandError> {
    if std::io::stdin().is_terminal() {
        return Ok(());
    }
    let message = format!("cannot ask {purpose}: stdin is not a terminal");
    let hint = format!("to go ahead without asking: {unasked}");
    Err(CommandError::new(message).hint(hint).with_code(code::USAGE))
}

/// Asks before a change. After a no, says that nothing was changed.
pub(crate) fn confirm_change(question: &str, output: &Output) -> Result<bool, CommandError> {
    let confirmed = confirm(question)?;
    if !confirmed {
        output.line("nothing was changed");
    }
    Ok(confirmed)
}

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
