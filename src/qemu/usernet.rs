//! Forwarded ports of user networking at run time, by commands of the human monitor: QMP has none.

use crate::base::{Forward, HostPort, Protocol};

/// The forwarded ports of the host, parsed from `info usernet`:
///
/// ```text Protocol[State]
///
///
/// FD
///
/// Source Address
///
/// Port
///
///  Dest. Address
///
/// Port RecvQ SendQ TCP[HOST_FORWARD]
///
/// 13
///
///
///
///  127.0.0.1 40123
///
///
///
///  10.0.2.15
///
///
/// 22
///
///
///  0
///
///
///  0 ```
pub fn forwards(usernet: &str) -> Vec<Forward> {
    let forward = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (protocol, host, guest) = match columns[..] {
            ["TCP[HOST_FORWARD]", _, _, host, _, guest, ..] => (Protocol::Tcp, host, guest),
            ["UDP[HOST_FORWARD]", _, _, host, _, guest, ..] => (Protocol::Udp, host, guest),
            _ => return None,
        };
        let port = host.parse().ok()?;
        Some(Forward {
            host: HostPort { port, protocol },
            guest: guest.parse().ok()?,
        })
    };
    usernet.lines().filter_map(forward).collect()
}

/// Returns `true` when a forwarded port has a connection that is not closed on both sides.
pub fn is_connected(usernet: &str) -> bool {
    let forwards = forwards(usernet);
    let connection = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [state, _, _, host, _, guest, ..] = columns[..] else {
            return false;
        };
        let state = state
            .strip_prefix("TCP[")
            .and_then(|it| it.strip_suffix(']'));
        let open = state.is_some_and(|it| !OVER.contains(&it));
        open && forwards.iter().any(|it| {
            it.host.protocol == Protocol::Tcp
                && host.parse() == Ok(it.host.port)
                && guest.parse() == Ok(it.guest)
        })
    };
    usernet.lines().any(connection)
}

/// The states of a closed connection; the first one is that of the port itself.
const OVER: [&str; 6] = [
    "HOST_FORWARD",
    "CLOSED",
    "CLOSING",
    "LAST_ACK",
    "TIME_WAIT",
    "NONE",
];

/// The host's TCP port that forwards to the guest's `port`.
pub fn forwarded_port(usernet: &str, port: u16) -> Option<u16> {
    let all = forwards(usernet);
    let found = all
        .iter()
        .find(|it| it.guest == port && it.host.protocol == Protocol::Tcp);
    found.map(|it| it.host.port)
}

/// The command that forwards a port; the answer is empty unless it fails.
pub fn add(forward: Forward) -> String {
    format!("hostfwd_add net {}-:{}", rule(forward.host), forward.guest)
}

/// The command that removes a forward.
pub fn remove(host: HostPort) -> String {
    format!("hostfwd_remove net {}", rule(host))
}

fn rule(host: HostPort) -> String {
    format!("{}:{}", host.protocol.name(), host.address())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_forwarded_ports() {
        let text = "Hub -1 (net):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  \
            TCP[ESTABLISHED]   15       127.0.0.1    22       10.0.2.15    22     0     0\r\n  \
            TCP[HOST_FORWARD]  13       127.0.0.1 40123       10.0.2.15    22     0     0\r\n  \
            UDP[HOST_FORWARD]  14       127.0.0.1  5353       10.0.2.15    53     0     0\r\n  \
            TCP[HOST_FORWARD]  12       127.0.0.1  6443       10.0.2.15  6443     0     0\r\n";
        assert_eq!(forwarded_port(text, 22), Some(40123));
        assert_eq!(forwarded_port(text, 6443), Some(6443));
        assert_eq!(forwarded_port(text, 80), None);
        assert_eq!(forwarded_port(text, 53), None);
        let all: Vec<String> = forwards(text).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["40123:22", "5353:53/udp", "6443:6443"]);
    }

    #[test]
    fn parses_connections() {
        let forward =
            "  TCP[HOST_FORWARD]  12       127.0.0.1  6443       10.0.2.15  6443     0     0\r\n";
        let with = |line: &str| is_connected(&format!("{forward}  {line}\r\n"));
        assert!(!is_connected(forward));
        assert!(with(
            "TCP[ESTABLISHED]   15       127.0.0.1  6443       10.0.2.15  6443     0     0"
        ));
        assert!(with(
            "TCP[CLOSE_WAIT]    15       127.0.0.1  6443       10.0.2.15  6443     0     0"
        ));
        assert!(!with(
            "TCP[TIME_WAIT]     15       127.0.0.1  6443       10.0.2.15  6443     0     0"
        ));
        // A connection that the guest has opened.
        assert!(!with(
            "TCP[ESTABLISHED]   15       10.0.2.15 40000       192.0.2.1  6443     0     0"
        ));
    }

    #[test]
    fn formats_qemus_commands() {
        let udp: Forward = "5353:53/udp".parse().expect("sound");
        assert_eq!(add(udp), "hostfwd_add net udp:127.0.0.1:5353-:53");
        assert_eq!(remove(udp.host), "hostfwd_remove net udp:127.0.0.1:5353");
    }
}
