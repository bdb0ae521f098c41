//! `.k3s-vm/config`: choices are saved into the text of the file, whose comments and order are kept.

use std::path::Path;

use toml_edit::{DocumentMut, Item, TableLike, Value};

use super::{
    Config, ConfigError,
    config::reason,
    config_values::{AccelChoice, FirmwareChoice},
    settings::{Entry, list},
};
use crate::base::files;

const HEADER: &str = "\
# The config of this project's VM. Flags of `k3s-vm setup` and `k3s-vm configure` are saved here, and you can edit it.
# Changes take effect at the next start (k3s-vm restart). A disk grows and never shrinks. For another k3s_version, use
# k3s-vm upgrade. For another image, firmware or share_identity, recreate the VM: k3s-vm reset && k3s-vm setup
#
# image = \"debian-13\"      # or debian-12, ubuntu-26.04, ubuntu-24.04, ubuntu-22.04, a path, a URL
# image_sha256 = \"...\"     # the digest of the image
# k3s_version = \"stable\"   # or like \"v1.33.5+k3s1\"
# k3s_mirror = \"https://github.com/k3s-io/k3s/releases/download\"
# api_port = 6443           # default: 6443 or a free port
# accel = \"auto\"           # or \"kvm\", \"tcg\"
# cpu_model = \"Westmere\"   # a CPU model of QEMU; default: that of the host
# firmware = \"auto\"        # or \"bios\", \"uefi\"
# kubeconfig = \".kube/config\"
# timeout = \"5m\"
# ports = [\"8080:80\"]     # forwards of 127.0.0.1 to the guest; k3s-vm port add changes them at once
# mounts = [\"./src:/src\"]  # directories of the host in the guest; :ro after it is read-only
# host_access = \"5432\"      # ports of this host that the guest reaches at 10.0.2.2, or \"all\"
# isolated = true           # no network for the guest, and no way to the host
# share_identity = true     # a clone of a template, keys and certificates included
# suspend = true            # stop suspends the VM, and start resumes it
# idle_suspend = \"30m\"      # suspends the VM after this time without use; or \"off\"
#
# [k3s]
# args = [\"--flannel-backend=host-gw\"]   # flags of k3s server
# disable = [\"traefik\"]
# labels = [\"tier=dev\"]
# manifests = [\"deploy\"]                # files and directories that k3s deploys
# registries = \"registries.yaml\"        # mirrors and logins of registries
#
# [network]
# http_proxy = \"http://proxy.example:3128\"
# https_proxy = \"http://proxy.example:3128\"
# no_proxy = \"corp.example\"
# ca = [\"corp.pem\"]                     # certificates that the guest trusts
# dns = [\"192.0.2.53\"]

";

impl Config {
    /// The text of the file at `path` with these choices in it, and `true` when that differs from the file.
    ///
    /// # Errors
    ///
    /// When the file is not TOML or cannot be read.
    pub fn merged_into_file(&self, path: &Path) -> Result<(String, bool), ConfigError> {
        let there = files::read_own(path)?;
        let text = there.clone().unwrap_or_else(|| HEADER.to_owned());
        let merged = self
            .merged_into(&text)
            .map_err(|message| ConfigError::Invalid {
                path: path.to_owned(),
                message,
            })?;
        let changed = there.as_ref() != Some(&merged);
        Ok((merged, changed))
    }

    /// The config's text `text` with these choices in it. Everything else is unchanged.
    ///
    /// # Errors
    ///
    /// When `text` is not TOML.
    pub fn merged_into(&self, text: &str) -> Result<String, String> {
        let mut document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| reason(&error.to_string()))?;
        // Without a key in the file, toml_edit would put all comments after the first new one.
        let header = if document.is_empty() {
            document.trailing().as_str().map(str::to_owned)
        } else {
            None
        };
        if header.is_some() {
            document.set_trailing("");
        }
        for (key, value) in self.entries() {
            match value {
                Some(value) => set(&mut document, key, value),
                None if key == "image_sha256" => {
                    document.remove(key);
                }
                None => {}
            }
        }
        Ok(header.unwrap_or_default() + &document.to_string())
    }

    /// The choices and the text of the file at `path` with these choices added and the `forgotten` keys (like `memory` or
    /// `k3s.args`) removed.
    ///
    /// # Errors
    ///
    /// When the key does not exist, or the file is not TOML.
    pub fn changed(self, path: &Path, forgotten: &[String]) -> Result<(Self, String), ConfigError> {
        let text = files::read_own(path)?.unwrap_or_else(|| HEADER.to_owned());
        let change = || {
            let mut text = text;
            for key in forgotten {
                text = Self::without(key, &text)?;
            }
            let config = self.over(Self::parse(&text)?);
            let text = config.merged_into(&text)?;
            Ok((config, text))
        };
        change().map_err(|message| ConfigError::Invalid {
            path: path.to_owned(),
            message,
        })
    }

    fn without(key: &str, text: &str) -> Result<String, String> {
        let keys = Self::default().entries();
        if !keys.iter().any(|&(known, _)| known == key) {
            let keys: Vec<_> = keys.into_iter().map(|(known, _)| known).collect();
            return Err(format!(
                "unknown key {key:?}: expected one of {}",
                keys.join(", ")
            ));
        }
        let mut document: DocumentMut = text
            .parse()
            .map_err(|error: toml_edit::TomlError| reason(&error.to_string()))?;
        match key.split_once('.') {
            Some((table, key)) => document
                .get_mut(table)
                .and_then(Item::as_table_like_mut)
                .and_then(|table| table.remove(key)),
            None => document.remove(key),
        };
        Ok(document.to_string())
    }

    fn entries(&self) -> Vec<Entry> {
        let accel = self.accel.map(AccelChoice::name);
        let firmware = self.firmware.map(FirmwareChoice::name);
        let kubeconfig = self.kubeconfig.as_ref().map(|path| path.display());
        let flat = [
            ("cpus", self.cpus.map(|cpus| i64::from(cpus).into())),
            ("memory", text(self.memory)),
            ("disk", text(self.disk)),
            ("image", text(self.image.as_ref())),
            ("image_sha256", text(self.image_sha256)),
            ("k3s_version", text(self.k3s_version.as_ref())),
            ("k3s_mirror", text(self.k3s_mirror.as_ref())),
            ("api_port", self.api_port.map(|port| i64::from(port).into())),
            ("accel", text(accel)),
            ("cpu_model", text(self.cpu_model.as_ref())),
            ("firmware", text(firmware)),
            ("kubeconfig", text(kubeconfig)),
            ("timeout", text(self.timeout)),
            ("isolated", self.isolated.map(Value::from)),
            ("host_access", text(self.host_access.as_ref())),
            ("ports", list(self.ports.as_deref())),
            ("mounts", list(self.mounts.as_deref())),
            ("suspend", self.suspend.map(Value::from)),
            ("idle_suspend", text(self.idle_suspend)),
            ("share_identity", self.share_identity.map(Value::from)),
        ];
        flat.into_iter()
            .chain(self.k3s.entries())
            .chain(self.network.entries())
            .collect()
    }
}

/// Sets a key. The comments beside its former value are kept.
fn set(document: &mut DocumentMut, key: &str, mut value: Value) {
    let (table, key) = table_of(document, key);
    match table.get_mut(key) {
        Some(item) => {
            if let Some(old) = item.as_value() {
                *value.decor_mut() = old.decor().clone();
            }
            *item = Item::Value(value);
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

fn text(value: Option<impl ToString>) -> Option<Value> {
    value.map(|value| value.to_string().into())
}

/// The table that has `key`, created if it is missing, and the name of the key in it.
fn table_of<'a, 'b>(
    document: &'a mut DocumentMut,
    key: &'b str,
) -> (&'a mut dyn TableLike, &'b str) {
    let Some((table, key)) = key.split_once('.') else {
        return (document.as_table_mut(), key);
    };
    let item = document.entry(table).or_insert_with(toml_edit::table);
    if item.as_table_like().is_none() {
        *item = toml_edit::table();
    }
    (item.as_table_like_mut().expect("it is one"), key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::{Forward, Size},
        project::settings::Network,
    };

    #[test]
    fn saving_keeps_comments_and_order() {
        let before = "# mine\nmemory = \"4GiB\" # enough?\ncpus = 2\n";
        let config = Config {
            memory: Some(Size::gib(8)),
            accel: Some(AccelChoice::Tcg),
            ..Config::default()
        };
        let after = config.merged_into(before).expect("merged");
        assert_eq!(
            after,
            "# mine\nmemory = \"8GiB\" # enough?\ncpus = 2\naccel = \"tcg\"\n"
        );
    }

    #[test]
    fn unset_keys_are_open_again() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("config");
        let text = "cpus = 2\n\n[k3s]\n# mine\ndisable = [\"traefik\"]\nlabels = [\"a=b\"]\n";
        std::fs::write(&path, text).expect("written");
        let flags = Config {
            network: Network {
                no_proxy: Some("x".into()),
                ..Network::default()
            },
            ..Config::default()
        };
        let forget = |key: &str| flags.clone().changed(&path, &[key.to_owned()]);
        let (config, text) = forget("k3s.labels").expect("a key");
        assert_eq!(config.k3s.labels, None);
        assert_eq!(
            text,
            "cpus = 2\n\n[k3s]\n# mine\ndisable = [\"traefik\"]\n\n[network]\nno_proxy = \"x\"\n"
        );
        assert_eq!(Config::parse(&text), Ok(config));
        let message = forget("k3s.label").expect_err("no key").to_string();
        assert!(message.contains("k3s.labels, k3s.manifests"), "{message}");
    }

    #[test]
    fn a_new_file_begins_with_its_comments() {
        let config = Config {
            cpus: Some(2),
            ..Config::default()
        };
        assert_eq!(
            config.merged_into(HEADER).expect("merged"),
            format!("{HEADER}cpus = 2\n")
        );
    }

    #[test]
    fn flags_go_over_the_file_and_read_back() {
        let file = Config::parse("cpus = 4\nimage = \"debian-13\"\n").expect("sound");
        let flags = Config {
            cpus: Some(3),
            ports: Some(vec![Forward::tcp(8080, 80)]),
            timeout: Some("90s".parse().expect("sound")),
            idle_suspend: Some("1h 30m".parse().expect("sound")),
            ..Config::default()
        };
        let both = flags.over(file);
        let saved = both.merged_into(HEADER).expect("merged");
        assert_eq!(Config::parse(&saved), Ok(both));
    }
}
