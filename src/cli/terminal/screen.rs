//! A screen that is redrawn without flicker, and restored at the end.

use std::io::{IsTerminal, Write, stdout};

use crate::cli::{
    error::{CommandError, code},
    terminal::sanitize::sanitize,
};

/// The alternate screen, no cursor, no wrapping of long lines; and back.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";

const END: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

const HOME: &str = "\x1b[H";

const CLEAR_LINE: &str = "\x1b[K";

const CLEAR_BELOW: &str = "\x1b[J";

/// The terminal's alternate screen, until this is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    _private: (),
}

impl Screen {
    /// Opens the alternate screen of stdout.
    ///
    /// # Errors
    ///
    /// When stdout is not a terminal, or cannot be drawn over.
    pub(crate) fn open() -> Result<Self, CommandError> {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if !stdout().is_terminal() || dumb {
            return Err(
                CommandError::new("cannot draw the status: stdout is not a terminal")
                    .hint("for a pipe, one document a line: k3s-vm status --watch --json")
                    .with_code(code::USAGE),
            );
        }
        put(BEGIN);
        Ok(Self { _private: () })
    }

    /// Replaces the text on the screen, as far as it fits.
    pub(crate) fn draw(&self, text: &str) {
        put(&frame(&sanitize(text), rows()));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put(END);
    }
}

/// Written at once, so that no partial frame is seen. These sequences are not colors, and are also written with --color
/// never.
fn put(text: &str) {
    let mut stdout = stdout().lock();
    let _ = stdout.write_all(text.as_bytes());
    let _ = stdout.flush();
}

fn rows() -> usize {
    let size = rustix::termios::tcgetwinsize(stdout()).map_or(0, |it| it.ws_row);
    // A terminal that does not report a size is taken to be large enough.
    if size == 0 { usize::MAX } else { size.into() }
}

fn frame(text: &str, rows: usize) -> String {
    let lines: Vec<String> = text
        .lines()
        .take(rows)
        .map(|line| format!("{line}{CLEAR_LINE}"))
        .collect();
    format!("{HOME}{}{CLEAR_BELOW}", lines.join("\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_overwrites_the_last_one_without_scrolling() {
        assert_eq!(frame("ab\nc\n", 9), "\x1b[Hab\x1b[K\r\nc\x1b[K\x1b[J");
        assert_eq!(frame("a\nb\nc", 2), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(frame("", 2), "\x1b[H\x1b[J");
    }
}
