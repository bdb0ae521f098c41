//! `meta-data` and `user-data` as types. JSON is YAML, so they are written as JSON and nothing has to be escaped.
//!
//! They are the same for every VM: cloud-init only configures the network in its own way, which is DHCP and works with
//! every renderer, and runs `first-boot.sh` on the seed. The identity of a VM is in other files, for `apply-identity.sh`.

use serde::Serialize;
use serde_json::{Value, json};

/// The mount point of the seed in the guest, readable by root alone.
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
        // Services that a node does not need are not run: they would compete with k3s for the CPU.
        "cloud_init_modules": ["bootcmd"],
        "cloud_config_modules": [],
        "cloud_final_modules": [],
    });
    document("#cloud-config\n", &config)
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
    }
}
