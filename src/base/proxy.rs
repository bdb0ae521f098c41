//! Proxies for HTTP, as their variables name them.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// The host as the guest reaches it: QEMU's user networking leads this address to the host's loopback.
pub const HOST_IN_GUEST: &str = "10.0.2.2";

/// The address of a proxy. It may hold a password, and is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Proxy(Url);

/// Why a text is no proxy. The text is not repeated: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid proxy: expected a URL, e.g. http://proxy.example:3128, and in a password %23 for #, %2F for / and %3F for ?"
)]
pub struct ParseProxyError;

impl Proxy {
    /// The same proxy as the guest reaches it: what listens on this host's loopback has another address there.
    #[must_use]
    pub fn seen_from_guest(&self) -> Self {
        let mut url = self.0.clone();
        let local = match url.host() {
            // Of a scheme that is not the web's, addresses are left as they are written.
            Some(Host::Domain(name)) => match name.parse::<Ipv4Addr>() {
                Ok(address) => is_local(address),
                Err(_) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
            },
            Some(Host::Ipv4(address)) => is_local(address),
            Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
            None => false,
        };
        if local {
            url.set_host(Some(HOST_IN_GUEST))
                .expect("a URL with a host takes another one");
        }
        Self(url)
    }
}

fn is_local(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

impl FromStr for Proxy {
    type Err = ParseProxyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Of the variables, curl and Go take one without a scheme, too.
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let url = Url::parse(&with_scheme).map_err(|_| ParseProxyError)?;
        let known = ["http", "https", "socks5", "socks5h"].contains(&url.scheme());
        // Behind a # or a / of a password there would be another host, and the password would be another one.
        let more = !["", "/"].contains(&url.path()) || url.query().or(url.fragment()).is_some();
        if !known
            || more
            || url.host().is_none()
            || text.chars().any(|c| c.is_control() || c == ' ')
        {
            return Err(ParseProxyError);
        }
        Ok(Self(url))
    }
}

impl TryFrom<String> for Proxy {
    type Error = ParseProxyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Proxy> for String {
    fn from(proxy: Proxy) -> Self {
        proxy.0.as_str().trim_end_matches('/').to_owned()
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.host_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_on_loopback_is_the_gateway_to_the_guest() {
        for (here, there) in [
            ("http://127.0.0.1:3128", "http://10.0.2.2:3128"),
            (
                "http://me:word@localhost:3128/",
                "http://me:word@10.0.2.2:3128",
            ),
            ("localhost:3128", "http://10.0.2.2:3128"),
            ("https://[::1]:8080", "https://10.0.2.2:8080"),
            ("http://proxy.example:3128", "http://proxy.example:3128"),
            ("socks5://192.0.2.1:1080", "socks5://192.0.2.1:1080"),
            ("socks5://127.0.0.1:1080", "socks5://10.0.2.2:1080"),
            (
                "socks5h://me:word@127.1.2.3:1080",
                "socks5h://me:word@10.0.2.2:1080",
            ),
            ("socks5://LOCALHOST:1080", "socks5://10.0.2.2:1080"),
            ("socks5://[::1]:1080", "socks5://10.0.2.2:1080"),
            (
                "http://me:p@ss@localhost:3128",
                "http://me:p%40ss@10.0.2.2:3128",
            ),
            (
                "http://me:%23@localhost:3128",
                "http://me:%23@10.0.2.2:3128",
            ),
        ] {
            let proxy: Proxy = here.parse().expect(here);
            assert_eq!(String::from(proxy.seen_from_guest()), there);
        }
        for wrong in [
            "",
            "ftp://x",
            "http://",
            "http://a b",
            "a\nb",
            "http://me:12#x@localhost:3128",
            "http://me:a#x@localhost:3128",
            "http://me:1/x@localhost:3128",
            "http://me:1?x@localhost:3128",
        ] {
            assert!(wrong.parse::<Proxy>().is_err(), "{wrong:?}");
        }
    }
}
