//! k3s's own configuration file, `/etc/rancher/k3s/config.yaml`: its flags by name.

use serde_json::{Map, Value, json};

use crate::{base::Name, project::settings::K3s};

/// The flags of the VM `name`, with those of its user, as JSON, which is valid YAML. A repeated flag has all its
/// values.
pub fn server_config(name: &Name, chosen: &K3s) -> String {
    let mut flags = Map::new();
    // The node has the VM's name, whatever the host name is.
    flags.insert("node-name".into(), json!(name));
    // Only root of the guest reads the administrator's kubeconfig.
    flags.insert("write-kubeconfig-mode".into(), json!("0600"));
    for component in chosen.disable.iter().flatten() {
        add(&mut flags, "disable", json!(component));
    }
    for label in chosen.labels.iter().flatten() {
        add(&mut flags, "node-label", json!(label));
    }
    for flag in chosen.args.iter().flatten() {
        let value = flag
            .value
            .as_ref()
            .map_or(json!(true), |value| json!(value));
        add(&mut flags, &flag.name, value);
    }
    let mut text = format!("{:#}", Value::Object(flags));
    text.push('\n');
    text
}

fn add(flags: &mut Map<String, Value>, name: &str, value: Value) {
    match flags.get_mut(name) {
        None => {
            flags.insert(name.to_owned(), value);
        }
        Some(Value::Array(values)) => values.push(value),
        Some(first) => *first = json!([first.take(), value]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_config_that_k3s_reads() {
        let name = "k3s-shop-1a2b3c".parse().expect("sound");
        assert_eq!(
            server_config(&name, &K3s::default()),
            "{\n  \"node-name\": \"k3s-shop-1a2b3c\",\n  \"write-kubeconfig-mode\": \"0600\"\n}\n"
        );
        let flag = |text: &str| text.parse().expect("sound");
        let chosen = K3s {
            args: Some(vec![
                flag("--secrets-encryption"),
                flag("--disable=metrics-server"),
                flag("--tls-san=a.example"),
            ]),
            disable: Some(vec!["traefik".into(), "servicelb".into()]),
            labels: Some(vec!["tier=dev".parse().expect("sound")]),
            ..K3s::default()
        };
        let text = server_config(&name, &chosen);
        assert_eq!(
            serde_json::from_str::<Value>(&text).expect("JSON"),
            json!({
                "node-name": "k3s-shop-1a2b3c",
                "write-kubeconfig-mode": "0600",
                "disable": ["traefik", "servicelb", "metrics-server"],
                "node-label": "tier=dev",
                "secrets-encryption": true,
                "tls-san": "a.example",
            })
        );
    }
}
