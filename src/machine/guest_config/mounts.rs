//! Directories of the host in the guest: QEMU offers each under a tag, the guest's systemd mounts it before k3s starts,
//! and in the end it is looked whether the guest has it. A VM runs without those that its kernel cannot mount.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{
    base::{FileError, Mount, user_dirs::config_home},
    machine::{Machine, MachineError, Spec},
    qemu::command_line::HostShare,
};

/// The action that fails with a directory that does not exist.
pub const SHARE: &str = "give the guest";

/// The most that the kernel takes at once, and what the host changes is seen at once.
const OPTIONS: &str = "trans=virtio,version=9p2000.L,msize=512000,cache=mmap";

fn tag(index: usize) -> String {
    format!("mount{index}")
}

/// The directories that QEMU shares with the guest.
///
/// # Errors
///
/// When a directory is not there, not one that its user may read, or has something that the guest must not write.
pub(crate) fn host_shares(machine: &Machine, spec: &Spec) -> Result<Vec<HostShare>, MachineError> {
    let project = &machine.project;
    let home = env::home_dir().unwrap_or_default();
    let mounts = spec.mounts.iter().enumerate();
    mounts
        .map(|(index, mount)| {
            let path = mount.host_folder(project.root(), &home);
            fs::read_dir(&path).map_err(FileError::on(SHARE, &path))?;
            let path = fs::canonicalize(&path).map_err(FileError::on(SHARE, &path))?;
            if !mount.read_only {
                require_nothing_of_ours(machine, spec, mount, &path)?;
            }
            Ok(HostShare {
                tag: tag(index),
                path,
                read_only: mount.read_only,
            })
        })
        .collect()
}

/// Requires that the guest cannot write anything that this program trusts and runs on the host: the VM's state, the
/// kubeconfig, the cache, the user's config and key.
fn require_nothing_of_ours(
    machine: &Machine,
    spec: &Spec,
    mount: &Mount,
    path: &Path,
) -> Result<(), MachineError> {
    let project = &machine.project;
    let ours = [
        Some(project.own_directory()),
        Some(project.resolve(&spec.kubeconfig)),
        Some(machine.cache.clone()),
        config_home().map(|it| it.join("k3s-vm")),
    ];
    for own in ours.into_iter().flatten() {
        let real = existing(&own);
        if real.starts_with(path) || path.starts_with(&real) {
            return Err(MachineError::ExposedMount {
                mount: mount.clone(),
                exposes: own,
            });
        }
    }
    Ok(())
}

/// The path without links, as far as it exists.
fn existing(path: &Path) -> PathBuf {
    let mut ancestors = path.ancestors();
    let found = ancestors.find_map(|it| Some((it, fs::canonicalize(it).ok()?)));
    match found {
        Some((it, real)) => path
            .strip_prefix(it)
            .map_or(real.clone(), |rest| real.join(rest)),
        None => path.to_owned(),
    }
}

/// The guest's files for them, each with its path: a unit for each, and that k3s has them started.
pub(crate) fn units(mounts: &[Mount]) -> Vec<(String, String)> {
    if mounts.is_empty() {
        return Vec::new();
    }
    let unit = |(index, mount): (usize, &Mount)| {
        let text = format!(
            "[Unit]\nDescription={} of the host\nDefaultDependencies=no\nConflicts=umount.target\nBefore=umount.target\n\n\
             [Mount]\nWhat={}\nWhere={}\nType=9p\nOptions={OPTIONS},{}\n",
            specifiers_doubled(&mount.host),
            tag(index),
            specifiers_doubled(&mount.guest),
            if mount.read_only { "ro" } else { "rw" },
        );
        (format!("etc/systemd/system/{}.mount", mount.unit()), text)
    };
    let mut all: Vec<_> = mounts.iter().enumerate().map(unit).collect();
    // Pods need them; but a node without them is better than no node.
    let names: Vec<_> = mounts
        .iter()
        .map(|it| format!("{}.mount", it.unit().replace('\\', "\\\\")))
        .collect();
    all.push((
        "etc/systemd/system/k3s.service.d/k3s-vm-mounts.conf".to_owned(),
        format!(
            "[Service]\nExecStartPre=-/bin/systemctl start {}\n",
            names.join(" ")
        ),
    ));
    all
}

fn specifiers_doubled(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_mounts_before_k3s_starts() {
        assert_eq!(units(&[]), []);
        let mounts = ["./src:/src", "~/50%:/srv/my-data:ro"].map(|it| it.parse().expect(it));
        let text = units(&mounts)
            .into_iter()
            .map(|(path, content)| format!("{path}\n{content}"))
            .collect::<Vec<_>>();
        insta::assert_snapshot!(text.join("\n"), @r#"
        etc/systemd/system/src.mount
        [Unit]
        Description=./src of the host
        DefaultDependencies=no
        Conflicts=umount.target
        Before=umount.target

        [Mount]
        What=mount0
        Where=/src
        Type=9p
        Options=trans=virtio,version=9p2000.L,msize=512000,cache=mmap,rw

        etc/systemd/system/srv-my\x2ddata.mount
        [Unit]
        Description=~/50%% of the host
        DefaultDependencies=no
        Conflicts=umount.target
        Before=umount.target

        [Mount]
        What=mount1
        Where=/srv/my-data
        Type=9p
        Options=trans=virtio,version=9p2000.L,msize=512000,cache=mmap,ro

        etc/systemd/system/k3s.service.d/k3s-vm-mounts.conf
        [Service]
        ExecStartPre=-/bin/systemctl start src.mount srv-my\\x2ddata.mount
        "#);
    }
}
