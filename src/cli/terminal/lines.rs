//! The guest's output in whole lines, as it comes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// A longer line is printed in parts.
const LONGEST: usize = 64 << 10;

/// Passes whole lines on, without line ends; the rest when it is dropped.
pub(crate) struct Lines<F: FnMut(&str)> {
    show: F,
    unfinished: Vec<u8>,
}

impl<F: FnMut(&str)> Lines<F> {
    pub(crate) const fn to(show: F) -> Self {
        Self {
            show,
            unfinished: Vec::new(),
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.unfinished);
        (self.show)(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']));
    }
}

impl<F: FnMut(&str) + Unpin> AsyncWrite for Lines<F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.unfinished.extend_from_slice(line);
            if line.ends_with(b"\n") || self.unfinished.len() > LONGEST {
                self.end_line();
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl<F: FnMut(&str)> Drop for Lines<F> {
    fn drop(&mut self) {
        if !self.unfinished.is_empty() {
            self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn lines_are_whole_and_bounded() {
        let mut seen = Vec::new();
        let mut lines = Lines::to(|line: &str| seen.push(line.to_owned()));
        for part in ["one\r\ntw", "o\n\n", "three"] {
            lines.write_all(part.as_bytes()).await.expect("taken");
        }
        let flood = vec![b'x'; 2 * LONGEST];
        lines.write_all(&flood).await.expect("taken");
        lines.write_all(b"end").await.expect("taken");
        drop(lines);
        let lengths: Vec<usize> = seen.iter().map(String::len).collect();
        assert_eq!(seen[..3], ["one", "two", ""]);
        assert_eq!(lengths[3..], [2 * LONGEST + 5, 3]);
    }
}
