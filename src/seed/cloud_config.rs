//! `meta-data`, `user-data` and `network-config` as types. JSON is YAML, so they are written as JSON and nothing has to
//! be escaped.
//!
//! They are the same for every machine: cloud-init only brings the network up and hands over to `first-boot.sh` on the
//! seed. What makes a guest one machine and no other lies beside them, for `identity.sh`.

use serde::Serialize;
use serde_json::{Value, json};

/// Where the guest mounts the seed, readable by root alone.
const MOUNT: &str = "/run/k3s-vm/seed";

/// The content of `meta-data`.
pub fn meta_data() -> String {
    document("", &json!({ "instance-id": "k3s-vm" }))
}

/// The content of `user-data`.
pub fn user_data() -> String {
    let first_boot = format!(
        "mkdir -p {MOUNT} && chmod 0700 {MOUNT} && \
         {{ mountpoint -q {MOUNT} || mount -t vfat -o ro,umask=077 /dev/disk/by-id/virtio-seed {MOUNT}; }} && \
         sh {MOUNT}/first-boot.sh {MOUNT}"
    );
    let config: Value = json!({
        "bootcmd": [["sh", "-c", first_boot]],
        "preserve_hostname": true,
        // What a node does not need is not run: it would only compete with k3s for the processor.
        "cloud_init_modules": ["bootcmd"],
        "cloud_config_modules": [],
        "cloud_final_modules": [],
    });
    document("#cloud-config\n", &config)
}

/// The content of `network-config`: user networking gives every guest the same address, so that no boot has to ask for it.
pub fn network_config() -> String {
    let card = json!({
        "match": { "name": "e*" },
        "addresses": ["10.0.2.15/24"],
        "routes": [{ "to": "0.0.0.0/0", "via": "10.0.2.2" }],
        "nameservers": { "addresses": ["10.0.2.3"] },
    });
    document("", &json!({ "version": 2, "ethernets": { "host": card } }))
}

fn document(header: &str, value: &impl Serialize) -> String {
    let json = serde_json::to_string_pretty(value).expect("texts and lists have a JSON form");
    format!("{header}{json}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        insta::assert_snapshot!("meta-data", meta_data());
        insta::assert_snapshot!("user-data", user_data());
        insta::assert_snapshot!("network-config", network_config());
    }
}
