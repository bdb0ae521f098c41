//! The host's DNS servers, and those that a guest uses because of them.
//!
//! A guest asks 10.0.2.3. User networking forwards that to the first server of the host's resolv.conf that has an IPv4
//! address, and fec0::3 to the first that has an IPv6 address; a further one is never tried (libslirp, src/slirp.c,
//! `get_dns_addr`). Without any, its versions before 4.8 answer nothing, and later ones forward to the host's loopback.
//! Every other address of the guest leads to that address from the host, but 10.0.2.2 to 127.0.0.1.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{net::UdpSocket, time::timeout};

use crate::{
    base::{
        FileError,
        files::{self, PRIVATE},
        resolv_conf::{self, DnsServer},
    },
    machine::Spec,
    project::{Project, settings::Network},
};

/// The host's loopback, as the guest reaches it.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));

/// The forwarder to the host's first IPv6 server.
const FORWARDER_IPV6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 3));

/// The C library uses three servers of a resolv.conf, and so does a kubelet.
const MOST_SERVERS: usize = 3;

/// Servers that are asked; a user with more of them has other troubles.
const MOST_ASKED: usize = 8;

/// A query is sent twice: UDP may lose one.
const TRIES: usize = 2;

const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);

/// The state of the host's DNS, as far as a guest depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostDns {
    /// User networking forwards to this server, and it answers.
    Forwarded(IpAddr),
    /// The server that user networking forwards to does not answer. The guest uses these instead.
    Dead {
        /// The first IPv4 server.
        first: IpAddr,
        /// The servers for the guest.
        instead: Vec<IpAddr>,
    },
    /// The host has only IPv6 servers, which 10.0.2.3 does not lead to. The guest uses these instead.
    OnlyIpv6(Vec<IpAddr>),
    /// No server is listed, and one listens on the host's loopback.
    OnlyLocal,
    /// No server that the guest could use answers: the network may be down. The guest keeps 10.0.2.3.
    Unanswered(Vec<IpAddr>),
    /// No server is listed, and none listens on the host's loopback.
    Missing,
}

impl HostDns {
    /// Asks the host's servers, all at once. It takes at most 0.4 s.
    pub async fn probe() -> Self {
        let listed = resolv_conf::dns_servers(&resolv_conf::of_host());
        if listed.is_empty() {
            let local = DnsServer {
                address: Ipv4Addr::LOCALHOST.into(),
                interface: None,
            };
            let listens = answers(&local).await;
            return if listens {
                Self::OnlyLocal
            } else {
                Self::Missing
            };
        }
        let asked = listed.into_iter().take(MOST_ASKED).map(async |server| {
            let answers = answers(&server).await;
            Probed {
                address: server.address,
                answers,
            }
        });
        Self::of(&join_all(asked).await)
    }

    /// The state of a host with these servers, of which there is at least one.
    fn of(listed: &[Probed]) -> Self {
        let first = listed.iter().find(|it| it.address.is_ipv4());
        let instead = seen_from_guest(listed);
        match first {
            Some(first) if first.answers => Self::Forwarded(first.address),
            _ if instead.is_empty() => {
                Self::Unanswered(listed.iter().map(|it| it.address).collect())
            }
            Some(first) => Self::Dead {
                first: first.address,
                instead,
            },
            None => Self::OnlyIpv6(instead),
        }
    }

    /// The servers that a guest uses instead of 10.0.2.3, if there are any.
    pub fn instead(&self) -> &[IpAddr] {
        match self {
            Self::Dead { instead, .. } | Self::OnlyIpv6(instead) => instead,
            Self::OnlyLocal => &[HOST],
            Self::Forwarded(_) | Self::Unanswered(_) | Self::Missing => &[],
        }
    }

    /// The state in words, the consequence for the guest first.
    pub fn describe(&self) -> String {
        let servers = list(self.instead());
        // By default they have IPv4 only.
        let pods = if self.instead().iter().any(IpAddr::is_ipv4) {
            ""
        } else {
            "pods resolve no names outside the cluster, and "
        };
        let (consequence, cause) = match self {
            Self::Forwarded(server) => return format!("{server} answers"),
            Self::Dead { first, .. } => (
                format!("{pods}the guest asks {servers} for names"),
                format!("{first}, the first DNS server of /etc/resolv.conf, does not answer"),
            ),
            Self::OnlyIpv6(_) => (
                format!("{pods}the guest asks {servers} for names"),
                "/etc/resolv.conf has only IPv6 DNS servers".to_owned(),
            ),
            Self::OnlyLocal => (
                format!("the guest asks {servers} for names, which is this host"),
                "/etc/resolv.conf has no DNS server".to_owned(),
            ),
            Self::Unanswered(listed) => (
                "the guest resolves no names".to_owned(),
                format!(
                    "no DNS server of /etc/resolv.conf answers ({})",
                    list(listed)
                ),
            ),
            Self::Missing => (
                "the guest resolves no names".to_owned(),
                "/etc/resolv.conf has no DNS server".to_owned(),
            ),
        };
        format!("{consequence}: {cause}")
    }

    /// A network that is down now may be up when the guest asks.
    fn is_worth_a_warning(&self) -> bool {
        !matches!(self, Self::Forwarded(_) | Self::Unanswered(_))
    }
}

/// Looks which servers a guest that boots now has to use, keeps them for its settings, and warns when it is not 10.0.2.3.
///
/// # Errors
///
/// When they cannot be written.
pub(crate) async fn follow(project: &Project, spec: &Spec) -> Result<(), FileError> {
    let path = project.resolv_conf();
    if spec.isolated || chosen(&spec.network).is_some() {
        return files::remove_if_exists(&path);
    }
    let dns = HostDns::probe().await;
    tracing::debug!(?dns, "the host's DNS");
    if dns.is_worth_a_warning() {
        tracing::warn!("{} (choose one with --dns ADDRESS)", dns.describe());
    }
    match dns.instead() {
        [] => files::remove_if_exists(&path),
        servers => files::write(&path, resolv_conf::text(servers).as_bytes(), PRIVATE),
    }
}

/// The servers that the guest uses instead of 10.0.2.3: those of the user, else those that [`follow`] found.
///
/// # Errors
///
/// When they cannot be read.
pub(crate) fn servers(project: &Project, spec: &Spec) -> Result<Vec<IpAddr>, FileError> {
    if let Some(chosen) = chosen(&spec.network) {
        return Ok(chosen.to_vec());
    }
    if spec.isolated {
        return Ok(Vec::new());
    }
    let text = files::read_if_exists(&project.resolv_conf())?.unwrap_or_default();
    let kept = resolv_conf::dns_servers(&text).into_iter();
    Ok(kept.map(|it| it.address).collect())
}

/// The servers of `--dns`, which win always.
pub fn chosen(network: &Network) -> Option<&[IpAddr]> {
    network.dns.as_deref().filter(|it| !it.is_empty())
}

/// Addresses, for messages.
pub fn list(servers: &[IpAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    servers.join(", ")
}

/// A server, and the outcome of asking it.
#[derive(Debug, Clone, Copy)]
struct Probed {
    address: IpAddr,
    answers: bool,
}

/// Those that answer, by the addresses that the guest reaches them by: IPv4 first, which pods have.
fn seen_from_guest(listed: &[Probed]) -> Vec<IpAddr> {
    let first_ipv6 = listed.iter().map(|it| it.address).find(IpAddr::is_ipv6);
    let answering = listed.iter().filter(|it| it.answers);
    let mut servers: Vec<_> = answering
        .filter_map(|it| match it.address {
            IpAddr::V4(Ipv4Addr::LOCALHOST | Ipv4Addr::UNSPECIFIED) => Some(HOST),
            IpAddr::V4(address) => (!address.is_loopback()).then_some(it.address),
            _ if Some(it.address) == first_ipv6 => Some(FORWARDER_IPV6),
            IpAddr::V6(address) => is_reachable(&address).then_some(it.address),
        })
        .collect();
    servers.sort_by_key(IpAddr::is_ipv6);
    servers.dedup();
    servers.truncate(MOST_SERVERS);
    servers
}

/// Returns `true` when an address of the host's network is reachable from within the guest.
const fn is_reachable(address: &Ipv6Addr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && !address.is_unicast_link_local()
}

/// Returns `true` when a server answers a query in time; any answer will do.
async fn answers(server: &DnsServer) -> bool {
    query(server).await.unwrap_or(false)
}

async fn query(server: &DnsServer) -> io::Result<bool> {
    let local: IpAddr = match server.address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(socket_address(server, &socket)?).await?;
    let id: u16 = rand::random();
    for _ in 0..TRIES {
        socket.send(&root_query(id)).await?;
        if let Ok(answer) = timeout(ANSWER_TIMEOUT, answer_to(&socket, id)).await {
            return answer.map(|()| true);
        }
    }
    Ok(false)
}

/// Until the answer has come; the socket takes packets of its server only.
async fn answer_to(socket: &UdpSocket, id: u16) -> io::Result<()> {
    let mut packet = [0; 512];
    loop {
        let length = socket.recv(&mut packet).await?;
        if length >= 12 && packet.starts_with(&id.to_be_bytes()) {
            return Ok(());
        }
    }
}

fn socket_address(server: &DnsServer, socket: &UdpSocket) -> io::Result<SocketAddr> {
    const PORT: u16 = 53;
    Ok(match (server.address, server.interface.as_deref()) {
        (IpAddr::V6(address), Some(interface)) => {
            let index = match interface.parse() {
                Ok(index) => index,
                Err(_) => rustix::net::netdevice::name_to_index(socket, interface)?,
            };
            SocketAddrV6::new(address, PORT, 0, index).into()
        }
        (address, _) => (address, PORT).into(),
    })
}

/// A query for the DNS servers of the root, which every server knows (RFC 1035, 4.1).
fn root_query(id: u16) -> [u8; 17] {
    let [high, low] = id.to_be_bytes();
    // Recursion desired, one question: the root, NS, IN.
    [high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// Servers that answer, and with a minus before them those that do not.
    fn host(servers: &[&str]) -> HostDns {
        let servers = servers.iter().map(|it| Probed {
            address: address(it.trim_start_matches('-')),
            answers: !it.starts_with('-'),
        });
        HostDns::of(&servers.collect::<Vec<_>>())
    }

    fn instead(servers: &[&str]) -> Vec<String> {
        let instead = host(servers).instead().to_vec();
        instead.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_ipv4_server_is_forwarded_to() {
        for (servers, first) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["192.0.2.1", "-192.0.2.2"], "192.0.2.1"),
            (&["127.0.0.53"], "127.0.0.53"),
            (&["-2001:db8::1", "192.0.2.1"], "192.0.2.1"),
            (&["2001:db8::1", "127.0.0.1"], "127.0.0.1"),
        ] {
            assert_eq!(host(servers), HostDns::Forwarded(address(first)));
            assert_eq!(host(servers).instead(), [] as [IpAddr; 0]);
            assert!(!host(servers).is_worth_a_warning());
        }
    }

    #[test]
    fn a_dead_first_server_is_replaced_by_those_that_the_guest_reaches() {
        for (servers, expected) in [
            (&["-192.0.2.1", "192.0.2.2"][..], &["192.0.2.2"][..]),
            (
                &["-192.0.2.1", "2001:db8::1", "-192.0.2.2", "192.0.2.3"],
                &["192.0.2.3", "fec0::3"],
            ),
            (&["-192.0.2.1", "127.0.0.53", "192.0.2.2"], &["192.0.2.2"]),
            (&["-192.0.2.1", "127.0.0.1"], &["10.0.2.2"]),
            (&["-192.0.2.1", "0.0.0.0"], &["10.0.2.2"]),
            (&["-192.0.2.1", "::1"], &["fec0::3"]),
            (&["-192.0.2.1", "fe80::1"], &["fec0::3"]),
            (&["-127.0.0.53", "-::1", "2001:db8::2"], &["2001:db8::2"]),
            (
                &[
                    "-192.0.2.1",
                    "192.0.2.2",
                    "192.0.2.3",
                    "192.0.2.4",
                    "192.0.2.5",
                ],
                &["192.0.2.2", "192.0.2.3", "192.0.2.4"],
            ),
        ] {
            assert_eq!(instead(servers), expected, "{servers:?}");
            assert!(matches!(host(servers), HostDns::Dead { .. }));
            assert!(host(servers).is_worth_a_warning());
        }
    }

    #[test]
    fn ipv6_servers_are_reached_through_the_ipv6_forwarder() {
        for servers in [&["2001:db8::1"][..], &["::1"], &["fe80::1", "-2001:db8::1"]] {
            assert_eq!(host(servers), HostDns::OnlyIpv6(vec![FORWARDER_IPV6]));
        }
        assert_eq!(instead(&["-2001:db8::1", "2001:db8::2"]), ["2001:db8::2"]);
    }

    #[test]
    fn without_an_answer_nothing_is_changed() {
        for servers in [
            &["-192.0.2.1"][..],
            &["-2001:db8::1"],
            &["-192.0.2.1", "127.0.0.53"],
            &["-192.0.2.1", "-::1", "fe80::1"],
        ] {
            assert!(
                matches!(host(servers), HostDns::Unanswered(_)),
                "{servers:?}"
            );
            assert_eq!(instead(servers), [] as [&str; 0]);
            assert!(!host(servers).is_worth_a_warning());
        }
        assert_eq!(HostDns::OnlyLocal.instead(), [HOST]);
        assert_eq!(HostDns::Missing.instead(), [] as [IpAddr; 0]);
    }

    #[test]
    fn a_query_is_a_dns_message() {
        let query = root_query(0x1234);
        assert_eq!(query[..2], [0x12, 0x34]);
        assert_eq!(query[4..12], [0, 1, 0, 0, 0, 0, 0, 0], "one question");
        assert_eq!(query[12..], [0, 0, 2, 0, 1], "the root, NS, IN");
    }

    #[tokio::test]
    async fn only_the_answer_to_the_query_counts() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("bound");
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("bound");
        let (at, from) = (server.local_addr(), client.local_addr());
        client.connect(at.expect("known")).await.expect("connected");
        let from = from.expect("known");
        for packet in [&[][..], &[1; 12], &[0, 7, 0], &[8; 600]] {
            server.send_to(packet, from).await.expect("sent");
        }
        let waited = timeout(Duration::from_millis(50), answer_to(&client, 7)).await;
        assert!(waited.is_err(), "none of these is the answer");
        let mut answer = root_query(7);
        answer[2] |= 0x80;
        server.send_to(&answer, from).await.expect("sent");
        answer_to(&client, 7).await.expect("the answer");
    }
}
