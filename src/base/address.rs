//! URLs as screens, logs and records may have them: a URL can carry a user and a password, and with some services the
//! user is a token, too.

use url::Url;

const HIDDEN: &str = "***";

/// The URL for people, without what opens the door.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if !url.username().is_empty() || url.password().is_some() {
        // Neither fails on a URL that has a user already.
        let _ = url.set_password(None);
        let _ = url.set_username(HIDDEN);
    }
    url.into()
}

/// The same of what somebody typed, which may be no URL; then all before the last `@` may be a password.
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
    fn neither_user_nor_password_is_shown() {
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
}
