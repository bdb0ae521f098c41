//! The CPU models and features that a QEMU has.

use std::path::Path;

use super::answer::answer;

/// Returns `true` when the program knows a CPU model; `None` when it cannot list models.
pub fn knows_cpu(path: &Path, model: &str) -> Option<bool> {
    let output = answer(path, &["-cpu", "help"], "").ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut words = said.split_whitespace();
    // Every QEMU for x86-64 has that one.
    said.contains("qemu64").then(|| words.any(|it| it == model))
}

/// The reason why QEMU refuses the features of a CPU model. Whether the host has them depends on KVM and shows at the start.
pub fn refuses_cpu(path: &Path, chosen: &str) -> Option<String> {
    let (model, features) = chosen.split_once(',')?;
    let is_checked_at_start =
        |it: &&str| ["enforce", "check"].contains(&it.split('=').next().unwrap_or(it));
    // `host` needs KVM; `max` has the same properties.
    let model = if model == "host" { "max" } else { model };
    let cpu = std::iter::once(model)
        .chain(features.split(',').filter(|it| !is_checked_at_start(it)))
        .collect::<Vec<_>>()
        .join(",");
    let machine = "-machine q35,accel=tcg -nodefaults -display none -S -monitor stdio -cpu";
    let arguments: Vec<&str> = machine.split(' ').chain([cpu.as_str()]).collect();
    // A QEMU that accepts the model runs until it gets this.
    let ended = answer(path, &arguments, "quit\n").ok()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let last = said.lines().next_back()?;
    let reason = last.rsplit(": ").next()?;
    (!ended.status.success()).then(|| reason.to_owned())
}

/// A feature that a VM needs and this QEMU was built without.
pub fn lacks(path: &Path) -> Option<&'static str> {
    let asked = answer(path, &["-sandbox", "on", "-netdev", "help"], "").ok()?;
    let [said, refused] = [&asked.stdout, &asked.stderr].map(|it| String::from_utf8_lossy(it));
    if !asked.status.success() {
        return refused
            .contains("sandbox")
            .then_some("a sandbox (libseccomp)");
    }
    let has_user = said.lines().any(|it| it.trim() == "user");
    // An older one does not list them.
    (said.contains("tap") && !has_user).then_some("user networking (libslirp)")
}
