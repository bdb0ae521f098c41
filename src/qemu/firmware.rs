//! UEFI firmware, found through the descriptors that distributions install for it.
//!
//! The format is QEMU's `docs/interop/firmware.json`; directories are searched in its order of precedence, and ours
//! come last, for hosts whose packages have the firmware and no descriptor.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::base::files;

/// The two files of a UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uefi {
    /// The code, shared and read-only.
    pub code: PathBuf,
    /// The variables: a template, or the VM's own copy.
    pub variables: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Descriptor {
    interface_types: Vec<String>,
    mapping: Mapping,
    targets: Vec<Target>,
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mapping {
    device: String,
    executable: Option<File>,
    nvram_template: Option<File>,
}

#[derive(Debug, Deserialize)]
struct File {
    filename: PathBuf,
    format: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
    machines: Vec<String>,
}

const FALLBACKS: [&str; 3] = [
    include_str!("../../firmware/uefi/debian.json"),
    include_str!("../../firmware/uefi/fedora.json"),
    include_str!("../../firmware/uefi/arch.json"),
];

/// The first UEFI firmware of this host that boots a q35 VM without SMM and enrolled keys.
pub fn find_uefi(qemu: &Path) -> Option<Uefi> {
    let installed = descriptors(&directories(qemu));
    installed
        .iter()
        .map(String::as_str)
        .chain(FALLBACKS)
        .filter_map(usable)
        .find(|uefi| uefi.code.is_file() && uefi.variables.is_file())
}

fn directories(qemu: &Path) -> Vec<PathBuf> {
    let config = env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".config")));
    let prefix = fs::canonicalize(qemu)
        .ok()
        .and_then(|path| Some(path.parent()?.parent()?.join("share")));
    let roots = [
        config,
        Some("/etc".into()),
        Some("/usr/share".into()),
        prefix,
    ];
    roots
        .into_iter()
        .flatten()
        .map(|root| root.join("qemu/firmware"))
        .collect()
}

/// The descriptors in order of precedence: sorted by file name, an earlier directory's file hiding a later one's.
fn descriptors(directories: &[PathBuf]) -> Vec<String> {
    let mut by_name = BTreeMap::new();
    for directory in directories {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                by_name.entry(entry.file_name()).or_insert(path);
            }
        }
    }
    by_name
        .values()
        .filter_map(|path| String::from_utf8(files::read(path).ok()?).ok())
        .collect()
}

/// The firmware of a descriptor, unless it does not fit this program's VMs.
pub fn usable(descriptor: &str) -> Option<Uefi> {
    let descriptor: Descriptor = serde_json::from_str(descriptor).ok()?;
    let fits = |target: &Target| {
        target.architecture == "x86_64"
            && target
                .machines
                .iter()
                .any(|machine| machine.starts_with("pc-q35"))
    };
    let unwanted = [
        "requires-smm",
        "enrolled-keys",
        "amd-sev",
        "amd-sev-es",
        "amd-sev-snp",
        "intel-tdx",
    ];
    let sound = descriptor
        .interface_types
        .iter()
        .any(|interface| interface == "uefi")
        && descriptor.mapping.device == "flash"
        && descriptor.targets.iter().any(fits)
        && !descriptor
            .features
            .iter()
            .any(|feature| unwanted.contains(&feature.as_str()));
    let raw = |file: Option<File>| {
        file.filter(|file| file.format == "raw")
            .map(|file| file.filename)
    };
    let (code, variables) = (
        raw(descriptor.mapping.executable)?,
        raw(descriptor.mapping.nvram_template)?,
    );
    sound.then_some(Uefi { code, variables })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_descriptors_are_usable() {
        for descriptor in FALLBACKS {
            assert!(usable(descriptor).is_some(), "{descriptor}");
        }
    }

    #[test]
    fn firmware_with_other_requirements_is_skipped() {
        let secure = FALLBACKS[0].replace("\"features\": [", "\"features\": [\"requires-smm\", ");
        assert_ne!(secure, FALLBACKS[0]);
        assert_eq!(usable(&secure), None);
        assert_eq!(usable(&FALLBACKS[0].replace("x86_64", "aarch64")), None);
        assert_eq!(usable("{}"), None);
    }

    #[test]
    fn an_earlier_directory_hides_a_later_one() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let directories = ["a", "b"].map(|name| temporary.path().join(name));
        for (directory, files) in directories
            .iter()
            .zip([vec!["50-x.json"], vec!["50-x.json", "40-y.json"]])
        {
            fs::create_dir(directory).expect("created");
            for file in files {
                fs::write(
                    directory.join(file),
                    directory.join(file).display().to_string(),
                )
                .expect("written");
            }
        }
        let shown = |name: &str| temporary.path().join(name).display().to_string();
        assert_eq!(
            descriptors(&directories),
            [shown("b/40-y.json"), shown("a/50-x.json")]
        );
    }
}
