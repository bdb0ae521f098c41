//! Errors with their causes, in words for users.

use std::error::Error;

/// The words of the HTTP client between an address and the reason.
const OF_HTTP_CLIENT: [&str; 9] = [
    "error sending request",
    "client error (Connect)",
    "client error (SendRequest)",
    "tcp connect error",
    "dns error",
    "error resolving DNS",
    "error decoding response body",
    "request or response body error",
    "error reading a body from connection",
];

/// The error and its causes in one sentence. A cause that its error repeats is left out, and so are words of the HTTP client
/// that have a reason behind them.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        next = error.source();
        let reason = error.to_string();
        let says_nothing = next.is_some() && OF_HTTP_CLIENT.contains(&reason.as_str());
        if !says_nothing && !text.contains(&reason) {
            text = format!("{text}: {reason}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    fn chain(words: &[&'static str]) -> Link {
        let rest = (words.len() > 1).then(|| Box::new(chain(&words[1..])));
        Link(words[0], rest)
    }

    #[test]
    fn the_reason_is_left() {
        for (words, told) in [
            (
                &[
                    "cannot reach x",
                    "error sending request",
                    "client error (Connect)",
                    "tcp connect error",
                    "refused",
                ][..],
                "cannot reach x: refused",
            ),
            (
                &["cannot reach x", "error sending request"],
                "cannot reach x: error sending request",
            ),
            (
                &["cannot read x: full", "full", "more"],
                "cannot read x: full: more",
            ),
        ] {
            assert_eq!(with_causes(&chain(words)), told);
        }
    }
}
