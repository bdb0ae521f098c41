//! The last look at what is shown: paths, URLs, and the words of guests and servers are in it, and none of them may
//! steer the terminal or give a password away.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
};

use crate::base::address::without_logins;

/// What may be shown of a text.
pub(crate) fn sanitize(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    let text = without_logins(text);
    if !text.contains(steers) {
        return text;
    }
    let shown = |c: char| match c {
        c if steers(c) => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// A log file that the same holds for.
#[derive(Debug)]
pub(crate) struct PlainFile(pub(crate) File);

impl Write for &PlainFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        (&self.0).write_all(sanitize(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        (&self.0).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_not_steered() {
        let text = "a\u{1b}]0;owned\u{7}\u{9b}b\r\n\tc é";
        assert_eq!(sanitize(text), "a\\u{1b}]0;owned\\u{7}\\u{9b}b\\r\n\tc é");
    }
}
