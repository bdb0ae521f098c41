//! `autostart`: a unit of the user's systemd starts the VM with the login session and stops it with it.
//!
//! The unit is the only note of it: it says in a line of its own, which systemd leaves alone, whose it is.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    base::{
        FileError, Name,
        files::{self, PRIVATE},
        user_dirs::config_home,
    },
    machine::MachineError,
    project::{Project, Record},
};

/// The line with the VM's place. systemd ignores keys that begin with `X-`.
const OWNER: &str = "X-K3sVm=";

const WANTS: &str = "default.target.wants";

/// The autostart of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autostart {
    /// The unit of the VM; `None` without autostart.
    pub unit: Option<PathBuf>,
    /// The user's systemd also runs without a login.
    pub lingers: bool,
}

/// The autostart of the VM now.
///
/// # Errors
///
/// When there is no home, or its units cannot be read.
pub fn status(project: &Project) -> Result<Autostart, MachineError> {
    let folder = folder()?;
    let place = project.place();
    let ours = units(&folder)?.into_iter().find(|(unit, owner)| {
        *owner == place && folder.join(WANTS).join(name_of(unit)).is_symlink()
    });
    let user = nix::unistd::User::from_uid(nix::unistd::getuid());
    let user = user.ok().flatten().map(|it| it.name).unwrap_or_default();
    Ok(Autostart {
        unit: ours.map(|(unit, _)| unit),
        lingers: !user.is_empty() && Path::new("/var/lib/systemd/linger").join(user).exists(),
    })
}

/// Writes the unit and enables it.
///
/// # Errors
///
/// When there is no home, the unit cannot be written, or is not one that `autostart` has written.
pub fn on(
    project: &Project,
    record: &Record,
    cache: &Path,
    program: &Path,
) -> Result<Autostart, MachineError> {
    let home = home()?;
    let folder = units_of(&home);
    // A unit of another name belongs to a former VM.
    off(project)?;
    let unit = folder.join(free_name(&folder, project, &record.name)?);
    let path = std::env::var("PATH").unwrap_or_default();
    let runtime = std::env::var_os("K3S_VM_RUNTIME_DIR");
    let environment: Vec<(&str, &Path)> = [
        ("K3S_VM_CACHE_DIR", cache),
        ("XDG_CONFIG_HOME", home.as_path()),
        ("PATH", Path::new(&path)),
    ]
    .into_iter()
    .chain(
        runtime
            .as_ref()
            .map(|it| ("K3S_VM_RUNTIME_DIR", Path::new(it))),
    )
    .collect();
    let text = text(project, &record.name, program, &environment)?;
    files::create_private_dir(&folder)?;
    files::write(&unit, text.as_bytes(), PRIVATE)?;
    let name = name_of(&unit);
    if !systemctl(&["daemon-reload"]) || !systemctl(&["enable", "--quiet", &name]) {
        tracing::debug!("no systemd of the user's is there to enable the unit");
    }
    // Also if systemd reads other directories than this one.
    let link = folder.join(WANTS).join(&name);
    if !link.is_symlink() {
        files::create_private_dir(&folder.join(WANTS))?;
        symlink(&unit, &link).map_err(FileError::on("link", &link))?;
    }
    status(project)
}

/// Removes the unit. Returns `true` if there was one. The VM keeps its state.
///
/// # Errors
///
/// When it cannot be removed.
pub fn off(project: &Project) -> Result<bool, MachineError> {
    let Ok(folder) = folder() else {
        return Ok(false);
    };
    let place = project.place();
    let mut was = false;
    for (unit, _) in units(&folder)?.into_iter().filter(|it| it.1 == place) {
        let name = name_of(&unit);
        systemctl(&["disable", "--quiet", &name]);
        files::remove_if_exists(&folder.join(WANTS).join(&name))?;
        files::remove_if_exists(&unit)?;
        systemctl(&["daemon-reload"]);
        was = true;
    }
    Ok(was)
}

/// `$XDG_CONFIG_HOME`: systemd has its user units there, and this program the user's config and key.
fn home() -> Result<PathBuf, MachineError> {
    config_home()
        .ok_or_else(|| MachineError::Choice("there is no home directory for units".to_owned()))
}

fn units_of(home: &Path) -> PathBuf {
    home.join("systemd/user")
}

fn folder() -> Result<PathBuf, MachineError> {
    Ok(units_of(&home()?))
}

/// The units that `autostart` has written, each with the place of its VM.
fn units(folder: &Path) -> Result<Vec<(PathBuf, PathBuf)>, FileError> {
    let mut units = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("k3s-vm-") && name.ends_with(".service") {
            let unit = entry.path();
            let text = files::read_if_exists(&unit)?.unwrap_or_default();
            units.extend(owner(&text).map(|owner| (unit, owner)));
        }
    }
    Ok(units)
}

fn owner(text: &str) -> Option<PathBuf> {
    text.lines()
        .find_map(|line| line.strip_prefix(OWNER))
        .map(PathBuf::from)
}

fn name_of(unit: &Path) -> String {
    let name = unit.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The name of the VM's unit; with a hash of the path if another VM of the same name has one.
fn free_name(folder: &Path, project: &Project, name: &Name) -> Result<String, MachineError> {
    let mut taken = PathBuf::new();
    for name in [name, &project.machine_name()] {
        let name = format!("k3s-vm-{name}.service");
        taken = folder.join(&name);
        let Some(text) = files::read_if_exists(&taken)? else {
            return Ok(name);
        };
        // A unit of a VM that was deleted or moved away is unusable.
        let free = |owner: PathBuf| !Project::at_place(&owner).record().exists();
        if owner(&text).is_some_and(free) {
            return Ok(name);
        }
    }
    Err(MachineError::ForeignUnit(taken))
}

/// Runs systemctl of the user. Returns `true` if that succeeds.
fn systemctl(words: &[&str]) -> bool {
    let mut command = Command::new("systemctl");
    command.arg("--user").args(words).stdin(Stdio::null());
    match command.output() {
        Ok(output) => output.status.success(),
        Err(_) => false,
    }
}

/// The unit.
///
/// # Errors
///
/// When a path cannot be written into one.
fn text(
    project: &Project,
    name: &Name,
    program: &Path,
    environment: &[(&str, &Path)],
) -> Result<String, MachineError> {
    let utf8 = |path: &Path| {
        let text = path.to_str().filter(|it| !it.contains('\n'));
        text.map(str::to_owned).ok_or_else(|| {
            MachineError::Choice(format!(
                "cannot use the path {path:?} in a systemd unit: expected UTF-8 without line breaks"
            ))
        })
    };
    let (root, place) = (utf8(project.root())?, utf8(&project.place())?);
    let alias = project.alias().map_or("", |it| it.as_str());
    // Variables are expanded after a `$`, but not in the program itself.
    let line = |verb: &str| -> Result<String, MachineError> {
        let words = [
            "-C".to_owned(),
            root.clone(),
            format!("--name={alias}"),
            verb.to_owned(),
        ];
        let words = words.map(|word| quoted(&word.replace('$', "$$")));
        Ok(format!("{} {}", quoted(&utf8(program)?), words.join(" ")))
    };
    let record = utf8(&project.record())?.replace('%', "%%");
    let (start, stop) = (line("start")?, line("stop")?);
    let variable = |(name, value): &(&str, &Path)| {
        let pair = quoted(&format!("{name}={}", utf8(value)?));
        Ok(format!("Environment={pair}\n"))
    };
    let environment: Result<String, MachineError> = environment.iter().map(variable).collect();
    let environment = environment?;
    Ok(format!(
        "# By `k3s-vm autostart on`; `k3s-vm autostart off` removes it.\n\
         [Unit]\nDescription=k3s-vm VM {name}\nConditionPathExists={record}\n{OWNER}{place}\n\n\
         [Service]\n# QEMU keeps running when `start` has ended, and only `stop` ends it.\n\
         Type=oneshot\nRemainAfterExit=yes\nKillMode=process\nTimeoutStartSec=infinity\nTimeoutStopSec=180\n\
         {environment}ExecStart={start}\nExecStop={stop}\n\n\
         [Install]\nWantedBy=default.target\n"
    ))
}

/// One word of a unit's line, quoted and with doubled specifiers.
fn quoted(word: &str) -> String {
    let word = word.replace('\\', r"\\").replace('"', "\\\"");
    format!("\"{}\"", word.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_quoted() {
        let project = Project::at(Path::new("/home/a b/50% \"off\" $HOME\\"));
        let project = project.with("next".parse().ok());
        let name = "k3s-shop-next-1a2b3c".parse().expect("a name");
        let text = text(
            &project,
            &name,
            Path::new("/opt/$k3s/k3s-vm"),
            &[
                ("K3S_VM_CACHE_DIR", Path::new("/home/a b/.cache")),
                ("PATH", Path::new("/usr/bin:/a b")),
            ],
        );
        insta::assert_snapshot!(text.expect("a unit"));
    }

    #[test]
    fn a_unit_names_its_vm() {
        let text = "[Unit]\nX-K3sVm=/home/a b/shop\n\n[Service]\n";
        assert_eq!(owner(text), Some("/home/a b/shop".into()));
        assert_eq!(owner("[Unit]\nDescription=mine\n"), None);
    }
}
