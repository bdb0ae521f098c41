//! HTTP proxies, as their variables name them.

use std::{
    env, fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// The host's address in the guest: QEMU's user networking forwards it to the host's loopback.
pub const HOST_IN_GUEST: &str = "10.0.2.2";

/// The address of a proxy. It may hold a password, and is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Proxy(Url);

/// The reason why a text is not a proxy. The text is not repeated: it may have a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid proxy: expected a URL of http, https, socks5 or socks5h, e.g. http://proxy.example:3128, and in a password \
     %23 for #, %2F for / and %3F for ?"
)]
pub struct ParseProxyError;

impl Proxy {
    /// The proxy as the guest reaches it: this host's loopback has another address there.
    #[must_use]
    pub fn seen_from_guest(&self) -> Self {
        let mut url = self.0.clone();
        let local = match url.host() {
            // Only http and https addresses are normalised.
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

/// The proxy of the environment for a scheme, in the order of curl and Go; an error for an invalid one.
pub fn of_environment(scheme: &str) -> Option<Result<Proxy, ParseProxyError>> {
    let own = format!("{scheme}_proxy");
    let names = [
        own.clone(),
        own.to_uppercase(),
        "all_proxy".into(),
        "ALL_PROXY".into(),
    ];
    // For a CGI program, this is a header that any client can send (httpoxy.org).
    let of_server = |it: &&String| *it == "HTTP_PROXY" && env::var_os("REQUEST_METHOD").is_some();
    let mut values = names
        .iter()
        .filter(|it| !of_server(it))
        .filter_map(|it| env::var(it).ok());
    Some(values.find(|it| !it.is_empty())?.parse())
}

/// The hosts without a proxy, from the environment.
pub fn direct_of_environment() -> Option<String> {
    let mut values = ["no_proxy", "NO_PROXY"]
        .iter()
        .filter_map(|it| env::var(it).ok());
    values.find(|it| !it.is_empty())
}

/// Returns `true` when `url` is on a list of hosts without a proxy: `*`, names with all names below them, addresses and
/// networks, each with or without a port.
pub fn is_direct(list: &str, url: &Url) -> bool {
    let plain = |name: &str| {
        let name = name.trim_start_matches('[').trim_end_matches(']');
        name.trim_matches('.').to_ascii_lowercase()
    };
    let host = plain(url.host_str().unwrap_or_default());
    let address: Option<IpAddr> = host.parse().ok();
    let entries = list.split([',', ' ', '\t']).filter(|it| !it.is_empty());
    entries.into_iter().any(|entry| {
        if entry == "*" {
            return true;
        }
        // In an IPv6 address without brackets, a colon does not start a port.
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) if name.ends_with(']') || !name.contains(':') => (name, Some(port)),
            _ => (entry, None),
        };
        if port.is_some_and(|it| it.parse().ok() != url.port_or_known_default()) {
            return false;
        }
        // Go's form for names below a domain; curl does not know it.
        let below = name.strip_prefix("*.");
        let name = plain(below.unwrap_or(name));
        match (address, name.split_once('/')) {
            (Some(address), Some((network, bits))) => {
                is_in(address, network, bits).unwrap_or(false)
            }
            (Some(address), None) => name.parse() == Ok(address),
            (None, Some(_)) => false,
            (None, None) => {
                let rest = host.strip_suffix(&name).filter(|_| !name.is_empty());
                rest.is_some_and(|it| it.is_empty() && below.is_none() || it.ends_with('.'))
            }
        }
    })
}

fn is_in(address: IpAddr, network: &str, bits: &str) -> Option<bool> {
    let bits: u32 = bits.parse().ok()?;
    let (one, other, length) = match (address, network.parse().ok()?) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits().into(), other.to_bits().into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
        _ => return Some(false),
    };
    let host = u32::checked_sub(length, bits)?;
    let difference: u128 = one ^ other;
    Some(difference.checked_shr(host).unwrap_or_default() == 0)
}

impl From<Proxy> for Url {
    fn from(proxy: Proxy) -> Self {
        proxy.0
    }
}

impl FromStr for Proxy {
    type Err = ParseProxyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // curl and Go also accept a value without a scheme.
        let with_scheme = if text.contains("://") {
            text.to_owned()
        } else {
            format!("http://{text}")
        };
        let mut url = Url::parse(&with_scheme).map_err(|_| ParseProxyError)?;
        let known = ["http", "https", "socks5", "socks5h"].contains(&url.scheme());
        // Behind a # or a / in a password there would be another host. Where it is not in a password, curl and Go take the
        // host alone.
        let begin = with_scheme.find("://").map_or(0, |at| at + 3);
        let behind = with_scheme[begin..].split_once(['/', '?', '#']);
        let is_of_password = behind.is_some_and(|(_, rest)| rest.contains('@'));
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        if !known
            || is_of_password
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

    /// From the tables of curl (tests/unit/unit1614.c) and Go (x/net/http/httpproxy/proxy_test.go).
    #[test]
    fn no_proxy_matching() {
        for (list, url, direct) in [
            ("*", "https://any.example", true),
            ("foobar.example", "https://foobar.example", true),
            ("foobar.example", "https://a.foobar.example", true),
            ("foobar.example", "https://afoobar.example", false),
            (".foobar.example", "https://a.foobar.example", true),
            ("*.foobar.example", "https://a.foobar.example", true),
            ("FooBar.example.", "https://foobar.example./x", true),
            ("a.example, b.example", "http://b.example", true),
            ("a.example b.example", "http://b.example", true),
            ("b.example:8080", "http://b.example:8080", true),
            ("b.example:8080", "http://b.example", false),
            ("b.example:443", "https://b.example", true),
            ("192.0.2.7", "http://192.0.2.7", true),
            ("192.0.2.7:80", "http://192.0.2.7", true),
            ("192.0.2.0/24", "http://192.0.2.7", true),
            ("192.0.2.0/24", "http://192.0.3.7", false),
            ("192.0.2.0/33", "http://192.0.2.0", false),
            ("0.0.0.0/0", "http://192.0.2.7", true),
            ("[::1]", "http://[::1]:6443", true),
            ("::1", "http://[::1]:6443", true),
            ("[::1]:6443", "http://[::1]:6443", true),
            ("[::1]:443", "http://[::1]:6443", false),
            ("2001:db8::/32", "http://[2001:db8::7]", true),
            ("*.wildcard.example", "http://wildcard.example", false),
            ("*.wildcard.example", "http://nested.wildcard.example", true),
            ("*.wildcard.example", "http://awildcard.example", false),
            ("*wildcard.example", "http://awildcard.example", false),
            (".barbaz.example", "http://barbarbaz.example", false),
            ("192.168.1.2:81", "http://192.168.1.2", false),
            ("10.0.0.0/30", "http://10.0.0.2", true),
            ("2001:db8::52:0:1", "http://[2001:db8::52:0:1]", true),
            ("[2001:db8::52:0:2]:443", "http://[2001:db8::52:0:2]", false),
            ("[2001:db8::52:0:3]:80", "http://[2001:db8::52:0:3]", true),
            ("2002:db8:a::45/64", "http://[2002:db8:a::123]", true),
            (
                "2002:db8:a::45/64",
                "http://[fe80::424b:c8be:1643:a1b6]",
                false,
            ),
            ("localhost", "http://localhost.example", false),
            ("localhost", "http://local.localhost", true),
            ("192.168.0.0/16", "http://192.168.0.1", true),
            ("192.168.0.0/32", "http://192.168.0.1", false),
            ("192.168.0.0", "http://192.168.0.1", false),
            ("foo, bar, ::1/64", "http://[::1]", true),
            ("foo,,,,,   bar, ::1/64", "http://BAr", true),
            ("www2.example, .example.net", "http://www.example", false),
            (".example", "http://nonexample", false),
            ("", "http://a.example", false),
            (",. ,", "http://a.example", false),
        ] {
            let parsed = url.parse().expect(url);
            assert_eq!(is_direct(list, &parsed), direct, "{list:?} {url}");
        }
    }

    #[test]
    fn a_loopback_proxy_becomes_the_gateway() {
        for (here, there) in [
            ("http://127.0.0.1:3128", "http://10.0.2.2:3128"),
            (
                "http://me:word@localhost:3128/",
                "http://me:word@10.0.2.2:3128",
            ),
            ("localhost:3128", "http://10.0.2.2:3128"),
            (
                "http://proxy.example:3128/pac?x#y",
                "http://proxy.example:3128",
            ),
            ("HTTP://proxy.example", "http://proxy.example"),
            (
                "http://u%40d:p%25w@proxy.example:1/x",
                "http://u%40d:p%25w@proxy.example:1",
            ),
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
            "socks4://127.0.0.1:1",
            "socks4a://127.0.0.1:1",
            "http://me:1/x@y/z@localhost:3128",
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
