//! The output of a command in the guest, up to a bound: a guest may send more than this host has memory for.

use std::{
    io::{self, ErrorKind},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// The longest that is kept. A journal of some days is of some MiB.
const LONGEST: usize = 64 << 20;

/// The answer so far. It takes no more than 64 MiB.
#[derive(Debug, Default)]
pub struct Answer(pub Vec<u8>);

impl AsyncWrite for Answer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.len() + bytes.len() > LONGEST {
            let reason = format!("the guest's answer is longer than {} MiB", LONGEST >> 20);
            return Poll::Ready(Err(io::Error::new(ErrorKind::FileTooLarge, reason)));
        }
        self.0.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, copy, repeat};

    use super::*;

    #[tokio::test]
    async fn an_endless_answer_is_rejected() {
        let mut answer = Answer::default();
        let error = copy(&mut repeat(b'x'), &mut answer).await;
        let error = error.expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the guest's answer is longer than 64 MiB"
        );
        assert!(answer.0.len() <= LONGEST);
        let mut answer = Answer::default();
        let short = copy(&mut repeat(b'x').take(9), &mut answer).await;
        assert_eq!((short.expect("kept"), answer.0.len()), (9, 9));
    }
}
