//! Hints about the host, with a command for each distribution.

use std::fs;

use crate::{
    machine::MachineError,
    qemu::{VersionError, kvm::Kvm},
};

/// The distributions that get a command of their own.
pub(crate) const DISTRIBUTIONS: [&str; 4] = ["NixOS", "Debian/Ubuntu", "Fedora", "Arch"];

/// A command for each of [`DISTRIBUTIONS`], in their order.
pub(crate) type Fix = [&'static str; 4];

pub(crate) const INSTALL_QEMU: Fix = [
    "nix-shell -p qemu_kvm",
    "sudo apt-get update && sudo apt-get install --yes --no-install-recommends qemu-system-x86",
    "sudo dnf install --assumeyes qemu-system-x86-core",
    "sudo pacman -S --noconfirm qemu-base",
];

pub(crate) const INSTALL_UEFI: Fix = [
    "nix-shell -p qemu_kvm",
    "sudo apt-get install --yes ovmf",
    "sudo dnf install --assumeyes edk2-ovmf",
    "sudo pacman -S --noconfirm edk2-ovmf",
];

pub(crate) const INSTALL_KUBECTL: Fix = [
    "nix-shell -p kubectl",
    "sudo apt-get install --yes kubernetes-client",
    "sudo dnf install --assumeyes kubernetes-client",
    "sudo pacman -S --noconfirm kubectl",
];

pub(crate) const INSTALL_K9S: Fix = [
    "nix-shell -p k9s",
    "go install github.com/derailed/k9s@latest",
    "go install github.com/derailed/k9s@latest",
    "sudo pacman -S --noconfirm k9s",
];

pub(crate) const LOAD_KVM: Fix = [
    "boot.kernelModules = [ \"kvm-intel\" \"kvm-amd\" ];   # in configuration.nix; and switch virtualisation on in the firmware",
    "sudo modprobe -a kvm_intel kvm_amd   # and switch virtualisation on in the firmware",
    "sudo modprobe -a kvm_intel kvm_amd   # and switch virtualisation on in the firmware",
    "sudo modprobe -a kvm_intel kvm_amd   # and switch virtualisation on in the firmware",
];

pub(crate) const JOIN_KVM: Fix = [
    "users.users.<you>.extraGroups = [ \"kvm\" ];   # in configuration.nix, then log in again",
    "sudo usermod -aG kvm \"$USER\"   # then log in again",
    "sudo usermod -aG kvm \"$USER\"   # then log in again",
    "sudo usermod -aG kvm \"$USER\"   # then log in again",
];

/// The command for a CI runner, which has no login shell and so cannot join a group.
const UDEV: &str = "on a CI runner: echo 'KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0666\", OPTIONS+=\"static_node=kvm\"' | \
    sudo tee /etc/udev/rules.d/99-kvm4all.rules && sudo udevadm control --reload-rules && sudo udevadm trigger --name-match=kvm";

/// The index of this host's distribution in [`DISTRIBUTIONS`], from os-release(5).
pub(crate) fn this_distribution() -> Option<usize> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or_default()
            .trim_matches('"')
            .to_owned()
    };
    let ids = format!("{} {}", value("ID"), value("ID_LIKE"));
    let known = [
        &["nixos"][..],
        &["debian", "ubuntu"],
        &["fedora", "rhel"],
        &["arch"],
    ];
    ids.split_whitespace()
        .find_map(|id| known.iter().position(|names| names.contains(&id)))
}

/// The command for this host, or for every distribution if this one is unknown.
pub(crate) fn for_this_host(fix: &Fix) -> Vec<String> {
    match this_distribution() {
        Some(index) => vec![fix[index].to_owned()],
        None => DISTRIBUTIONS
            .iter()
            .zip(fix)
            .map(|(name, command)| format!("{name}: {command}"))
            .collect(),
    }
}

pub(crate) fn of_kvm(kvm: &Kvm) -> Vec<String> {
    match kvm {
        Kvm::Works => Vec::new(),
        Kvm::Missing => for_this_host(&LOAD_KVM),
        Kvm::NoPermission => [for_this_host(&JOIN_KVM), vec![UDEV.to_owned()]].concat(),
        Kvm::Broken(_) => vec![
            "this host is probably a VM itself: enable nested virtualisation on its host"
                .to_owned(),
        ],
    }
}

/// Hints about the host: QEMU, KVM, firmware, memory, space.
pub(crate) fn of(error: &MachineError) -> Vec<String> {
    let one = |hint: &str| vec![hint.to_owned()];
    match error {
        MachineError::Qemu(VersionError::Missing) => [
            for_this_host(&INSTALL_QEMU),
            one("or let setup do it: k3s-vm setup --install-missing"),
        ]
        .concat(),
        MachineError::Qemu(_) => for_this_host(&INSTALL_QEMU),
        MachineError::Kvm(kvm) => [of_kvm(kvm), one("or run without KVM: --accel tcg")].concat(),
        MachineError::SuspendedByKvm(kvm) => [
            of_kvm(kvm),
            one("or discard its memory and boot: k3s-vm stop --power-off && k3s-vm start"),
        ]
        .concat(),
        MachineError::NoUefi => [
            for_this_host(&INSTALL_UEFI),
            one("or use BIOS: --firmware bios"),
        ]
        .concat(),
        MachineError::Memory { .. } => one("use less: k3s-vm setup --memory 2GiB"),
        MachineError::Space { path, .. } => vec![format!(
            "free space on the file system of {}, or use another project directory",
            path.display()
        )],
        _ => Vec::new(),
    }
}
