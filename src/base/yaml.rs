//! Messages of the YAML parser.

use serde_saphyr::{Error, UserMessageFormatter};

/// The reason in one line, without an excerpt of the text, which could show a key.
pub fn reason(error: &Error) -> String {
    let told = error
        .without_snippet()
        .render_with_formatter(&UserMessageFormatter);
    let line = told.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    // Behind this are the parser's own counters.
    let (line, _) = line.split_once(": limits breached").unwrap_or((line, ""));
    line.to_owned()
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
        let bomb: String = (0..9)
            .map(|it| {
                format!(
                    "a{}: &a{} [{}]\n",
                    it + 1,
                    it + 1,
                    format!("*a{it},").repeat(9)
                )
            })
            .collect();
        let reason = reason_of(&format!("a0: &a0 1\n{bomb}"));
        assert_eq!(reason, "YAML document too large or too complex");
    }
}
