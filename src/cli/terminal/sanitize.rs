//! The filters of all output. Paths, URLs, and texts of guests and servers are in it: none of them may steer the
//! terminal or reveal a password.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
    sync::OnceLock,
};

use anstream::adapter::strip_str;

use crate::base::address::without_logins;

/// This program's own text for the terminal: [`readable`], and without control characters.
pub(crate) fn sanitize(text: &str) -> String {
    escape_controls(&readable(text)).into_owned()
}

/// This program's own text for people and programs: without logins, and without the numbers of the host's errors, like
/// `(os error 2)`. The standard library appends them, and other crates quote its texts in theirs.
pub(crate) fn readable(text: &str) -> String {
    without_error_numbers(&without_logins(text))
}

fn escape_controls(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return text.into();
    }
    let shown = |c: char| match c {
        c if steers(c) => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Returns `true` for a character that controls a terminal or changes the direction of the text around it, so that it reads
/// differently (UAX 9).
fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    turns || c.is_control() && !matches!(c, '\n' | '\t')
}

fn without_error_numbers(text: &str) -> String {
    const BEGIN: &str = " (os error ";
    let mut rest = text;
    let mut shown = String::new();
    while let Some((before, after)) = rest.split_once(BEGIN) {
        shown += before;
        let digits = after.trim_start_matches(|c: char| c.is_ascii_digit());
        rest = match digits.strip_prefix(')') {
            Some(behind) => behind,
            None => {
                shown += BEGIN;
                after
            }
        };
    }
    shown + rest
}

/// The guest's or QEMU's own text for a terminal. It may contain colors and line ends.
pub(crate) fn plain(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let text = strip_str(&text).to_string();
    escape_controls(&without_logins(&text)).into_owned()
}

/// The first error of a write to the log file.
static LOG_ERROR: OnceLock<String> = OnceLock::new();

/// The reason why the log file is incomplete, if it is.
pub(crate) fn log_file_error() -> Option<&'static str> {
    LOG_ERROR.get().map(String::as_str)
}

/// A log file without logins and control characters.
#[derive(Debug)]
pub(crate) struct PlainFile(pub(crate) File);

impl Write for &PlainFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let written = (&self.0).write_all(escape_controls(&without_logins(&text)).as_bytes());
        written.inspect_err(|error| {
            let _ = LOG_ERROR.set(error.to_string());
        })?;
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
    fn numbers_of_errors_are_left_out() {
        for (text, shown) in [
            (
                "cannot read x: No such file (os error 2)",
                "cannot read x: No such file",
            ),
            ("a (os error 13), b (os error 28), 5 B", "a, b, 5 B"),
            ("a (os error x) (os error 1", "a (os error x) (os error 1"),
        ] {
            assert_eq!(readable(text), shown);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let text = "a\u{1b}]0;owned\u{7}\u{9b}b\r\n\tc é";
        assert_eq!(sanitize(text), "a\\u{1b}]0;owned\\u{7}\\u{9b}b\\r\n\tc é");
        let text = "a\u{202e}b\u{2066}\u{200f} \u{200d}é";
        assert_eq!(plain(text), "a\\u{202e}b\\u{2066}\\u{200f} \u{200d}é");
        let text = "\u{1b}[32mOK\u{1b}[0m\r\n\u{1b}]52;c;b3duZWQ=\u{7}x\u{1b}Pq\u{9b}5n";
        let shown = plain(text);
        assert!(shown.starts_with("OK\n"), "{shown:?}");
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!shown.contains(steers), "{shown:?}");
    }
}
