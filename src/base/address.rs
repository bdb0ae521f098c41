//! URLs on screens, in logs and in records, without logins: a URL can have a user and a password, and with some
//! services the user is a token.

use std::borrow::Cow;

use url::Url;

const HIDDEN: &str = "***";

/// The URL for messages, without its password.
pub fn shown(url: &Url) -> String {
    without_logins(url.as_str()).into_owned()
}

/// A text without the logins in its addresses, like `https://user:password@host/`.
pub fn without_logins(text: &str) -> Cow<'_, str> {
    let ends = |c: char| c.is_whitespace() || "/?#\\\"'<>".contains(c);
    let mut shown = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + "://".len());
        let host = &after[..after.find(ends).unwrap_or(after.len())];
        let login = host.rfind('@').unwrap_or_default();
        shown += before;
        shown += if login > 0 { HIDDEN } else { "" };
        rest = &after[login..];
    }
    if shown.is_empty() {
        return text.into();
    }
    (shown + rest).into()
}

/// User input that may not be a URL, without its password: all before the last `@` may be one.
pub fn shown_text(text: &str) -> String {
    match (Url::parse(text), text.rsplit_once('@')) {
        (Ok(url), Some(_)) if url.has_host() => shown(&url),
        (_, Some((before, rest))) => {
            let scheme = before
                .split_once("://")
                .map_or_else(String::new, |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}{HIDDEN}@{rest}")
        }
        (_, None) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_hidden_in_user_input() {
        for (text, expected) in [
            ("https://h/a@b?c@d", "https://h/a@b?c@d"),
            ("https://user:pass@h:8/a@b", "https://***@h:8/a@b"),
            ("https://token@h/a", "https://***@h/a"),
            ("https://:pass@h/a", "https://***@h/a"),
            ("ftp://user:pass@h/a", "ftp://***@h/a"),
            ("https://user:pa/ss@h/a", "https://***@h/a"),
            ("https:user:pass@h/a", "https://***@h/a"),
            ("user:pass@h/a", "***@h/a"),
            ("ftp//h", "ftp//h"),
        ] {
            assert_eq!(shown_text(text), expected, "{text}");
        }
    }

    #[test]
    fn only_logins_are_hidden_in_text() {
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
            assert_eq!(without_logins(text), shown);
        }
    }
}
