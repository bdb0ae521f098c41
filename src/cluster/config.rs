//! k3s's own configuration file, `/etc/rancher/k3s/config.yaml`: its flags by name.

use serde::Serialize;

use crate::base::Name;

/// The flags that every machine sets.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ServerConfig {
    /// The node is called like the machine, whatever the host name becomes.
    pub node_name: Name,
    /// Only root of the guest reads the administrator's kubeconfig.
    pub write_kubeconfig_mode: &'static str,
}

impl ServerConfig {
    /// The configuration of the machine `name`.
    pub fn new(name: Name) -> Self {
        Self {
            node_name: name,
            write_kubeconfig_mode: "0600",
        }
    }

    /// As JSON, which is YAML.
    pub fn to_yaml(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("texts have a JSON form");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_k3s_reads() {
        let yaml = ServerConfig::new("k3s-shop-1a2b3c".parse().expect("sound")).to_yaml();
        assert_eq!(
            yaml,
            "{\n  \"node-name\": \"k3s-shop-1a2b3c\",\n  \"write-kubeconfig-mode\": \"0600\"\n}\n"
        );
    }
}
