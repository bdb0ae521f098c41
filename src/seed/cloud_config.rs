//! `meta-data` and `user-data` as types. JSON is YAML, so they are written as JSON and nothing has to be escaped.
//!
//! cloud-init does only what it must: plants the keys, grows the disk, and hands over to `first-boot.sh` on the seed.

use serde::Serialize;
use serde_json::{Value, json};

use crate::base::Name;

/// Where the guest mounts the seed, readable by root alone.
const MOUNT: &str = "/run/k3s-vm/seed";

/// What makes a guest this machine and no other.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The host name, also the node's.
    pub name: Name,
    /// cloud-init runs its first-boot work again when this changes.
    pub instance_id: String,
    /// The public key that may log in as root, in OpenSSH's one-line format.
    pub authorized_key: String,
    /// The guest's private host key, in OpenSSH's PEM format.
    pub host_key_private: String,
    /// Its public half, in OpenSSH's one-line format.
    pub host_key_public: String,
}

/// The content of `meta-data`.
pub fn meta_data(identity: &Identity) -> String {
    document(
        "",
        &json!({ "instance-id": identity.instance_id, "local-hostname": identity.name }),
    )
}

/// The content of `user-data`.
pub fn user_data(identity: &Identity) -> String {
    let first_boot = format!(
        "mkdir -p {MOUNT} && chmod 0700 {MOUNT} && \
         {{ mountpoint -q {MOUNT} || mount -t vfat -o ro,umask=077 /dev/disk/by-id/virtio-seed {MOUNT}; }} && \
         sh {MOUNT}/first-boot.sh {MOUNT}"
    );
    let config: Value = json!({
        "bootcmd": [["sh", "-c", first_boot]],
        "disable_root": false,
        "users": [],
        "ssh_authorized_keys": [identity.authorized_key],
        "ssh_keys": { "ed25519_private": identity.host_key_private, "ed25519_public": identity.host_key_public },
        "manage_etc_hosts": "localhost",
        "growpart": { "mode": "auto", "devices": ["/"] },
        "resize_rootfs": true,
        // What a node does not need is not run: it would only compete with k3s for the processor.
        "cloud_init_modules": [
            "seed_random", "bootcmd", "growpart", "resizefs", "set_hostname", "update_hostname", "update_etc_hosts",
            "users-groups", "ssh",
        ],
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

    fn identity() -> Identity {
        Identity {
            name: "k3s-shop-1a2b3c".parse().expect("sound"),
            instance_id: "11111111-2222-4333-8444-555555555555".into(),
            authorized_key: "ssh-ed25519 AAAAclient k3s-vm".into(),
            host_key_private:
                "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
                    .into(),
            host_key_public: "ssh-ed25519 AAAAhost".into(),
        }
    }

    #[test]
    fn documents() {
        insta::assert_snapshot!("meta-data", meta_data(&identity()));
        insta::assert_snapshot!("user-data", user_data(&identity()));
    }
}
