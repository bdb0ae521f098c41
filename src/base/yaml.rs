//! Messages of the YAML parser.

use serde_saphyr::{Error, UserMessageFormatter};

/// The reason in one line, without an excerpt of the text, which could show a key.
pub fn reason(error: &Error) -> String {
    let told = error
        .without_snippet()
        .render_with_formatter(&UserMessageFormatter);
    let line = told.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_for_those_who_write_programs() {
        let reason_of = |text| {
            let parsed = serde_saphyr::from_str::<serde_json::Value>(text);
            reason(&parsed.expect_err(text))
        };
        for text in ["a: 1\na: 2\n", "a: [", "{", "a: b: c"] {
            let reason = reason_of(text);
            let is_plain = !reason.contains("Options") && !reason.starts_with("error");
            assert!(is_plain && !reason.is_empty(), "{reason}");
        }
        assert!(reason_of("a: 1\na: 2\n").contains("line 2"));
    }
}
