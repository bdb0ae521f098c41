//! Errors with their causes, in words for users.

use std::error::Error;

/// The HTTP client's messages that say nothing beside the reason that follows them.
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

/// The error and its causes in one sentence, without causes that an error has in its message, and without the HTTP client's
/// words if a reason follows them.
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
    fn words_without_a_reason_are_left_out() {
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
