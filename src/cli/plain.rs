//! The last look at what is shown: paths, URLs, and the words of guests and servers are in it, and none of them may
//! steer the terminal or give a password away.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
};

/// What may be shown of a text.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
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

/// A mirror's address may have a login in it: `https://user:password@host/`.
pub(super) fn without_logins(text: &str) -> Cow<'_, str> {
    let ends = |c: char| c.is_whitespace() || "/?#\\\"'<>".contains(c);
    let mut shown = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        let host = &after[..after.find(ends).unwrap_or(after.len())];
        let login = host.rfind('@').unwrap_or_default();
        shown += before;
        shown += if login > 0 { "***" } else { "" };
        rest = &after[login..];
    }
    if shown.is_empty() {
        return text.into();
    }
    (shown + rest).into()
}

/// A log file that the same holds for.
#[derive(Debug)]
pub(super) struct PlainFile(pub(super) File);

impl Write for &PlainFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        (&self.0).write_all(plain(&text).as_bytes())?;
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
    fn logins_are_left_out_and_nothing_else() {
        for (text, shown) in [
            (
                "cannot reach http://ada:open@sesame@h:81/a@b: http://x@[::1]/",
                "cannot reach http://***@h:81/a@b: http://***@[::1]/",
            ),
            ("\"https://token@h\" is bad", "\"https://***@h\" is bad"),
            ("https://127.0.0.1:6443/@", "https://127.0.0.1:6443/@"),
            ("mail ada@example.org: ://", "mail ada@example.org: ://"),
            ("file:///a b/@c", "file:///a b/@c"),
            ("://@", "://@"),
            ("", ""),
        ] {
            assert_eq!(plain(text), shown);
        }
    }

    #[test]
    fn a_terminal_is_not_steered() {
        let text = "a\u{1b}]0;owned\u{7}\u{9b}b\r\n\tc é";
        assert_eq!(plain(text), "a\\u{1b}]0;owned\\u{7}\\u{9b}b\\r\n\tc é");
    }
}
