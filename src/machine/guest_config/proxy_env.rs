//! The proxies of k3s and its containerd, as the variables of their environment.

use crate::{
    base::{Name, Proxy, proxy::HOST_IN_GUEST},
    project::settings::{K3s, Network},
};

/// k3s's own ranges and domain (its documentation, "k3s server").
const DEFAULTS: [(&str, &str); 3] = [
    ("cluster-cidr", "10.42.0.0/16"),
    ("service-cidr", "10.43.0.0/16"),
    ("cluster-domain", "cluster.local"),
];

/// The guest, the host and the DNS server, as user networking has them.
const GUEST_NETWORK: &str = "10.0.2.0/24";

/// The content of `/etc/default/k3s`, which its unit reads; `None` without a proxy. Nothing of the cluster goes through it.
pub(crate) fn environment(network: &Network, k3s: &K3s, name: &Name) -> Option<String> {
    if network.http_proxy.is_none() && network.https_proxy.is_none() {
        return None;
    }
    let mut lines = String::new();
    let mut say = |variable: &str, value: &str| {
        // systemd.exec(5), EnvironmentFile=: within double quotes only these mean something.
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('$', "\\$")
            .replace('`', "\\`");
        lines.push_str(&format!("{variable}=\"{value}\"\n"));
    };
    for (variable, proxy) in [
        ("HTTP_PROXY", &network.http_proxy),
        ("HTTPS_PROXY", &network.https_proxy),
    ] {
        if let Some(proxy) = proxy {
            say(variable, &String::from(Proxy::seen_from_guest(proxy)));
        }
    }
    say("NO_PROXY", &direct(network, k3s, name).join(","));
    Some(lines)
}

/// The hosts that are reached without a proxy.
fn direct(network: &Network, k3s: &K3s, name: &Name) -> Vec<String> {
    let chosen = |flag: &str| {
        let flags = k3s.args.iter().flatten();
        let value = flags
            .filter(|it| it.name == flag)
            .filter_map(|it| it.value.clone())
            .next_back();
        value.map(|it| it.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    let mut direct: Vec<String> = [
        "localhost",
        "127.0.0.0/8",
        "::1",
        GUEST_NETWORK,
        HOST_IN_GUEST,
        name.as_str(),
        ".svc",
    ]
    .map(str::to_owned)
    .into();
    for (flag, default) in DEFAULTS {
        let values = chosen(flag).unwrap_or_else(|| vec![default.to_owned()]);
        let dot = if flag == "cluster-domain" { "." } else { "" };
        direct.extend(values.into_iter().map(|it| format!("{dot}{it}")));
    }
    // curl accepts blanks between the entries; Go, in which k3s is written, accepts only commas.
    let is_between = |c: char| c == ',' || c.is_whitespace();
    let own = network.no_proxy.iter().flat_map(|it| it.split(is_between));
    let own = own.filter(|it| !it.is_empty()).map(str::to_owned);
    for it in own {
        if !direct.contains(&it) {
            direct.push(it);
        }
    }
    direct
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_reached_without_a_proxy() {
        let name = "k3s-shop-1a2b3c".parse().expect("sound");
        assert_eq!(
            environment(&Network::default(), &K3s::default(), &name),
            None
        );
        let network = Network {
            http_proxy: Some("http://me:a$b@localhost:3128".parse().expect("sound")),
            no_proxy: Some("corp.example, localhost\tb.example\nc.example".into()),
            ..Network::default()
        };
        let k3s = K3s {
            args: Some(vec![
                "--cluster-cidr=10.52.0.0/16,2001:db8::/56"
                    .parse()
                    .expect("sound"),
            ]),
            ..K3s::default()
        };
        insta::assert_snapshot!(environment(&network, &k3s, &name).expect("a proxy"), @r#"
        HTTP_PROXY="http://me:a\$b@10.0.2.2:3128"
        NO_PROXY="localhost,127.0.0.0/8,::1,10.0.2.0/24,10.0.2.2,k3s-shop-1a2b3c,.svc,10.52.0.0/16,2001:db8::/56,10.43.0.0/16,.cluster.local,corp.example,b.example,c.example"
        "#);
    }
}
