//! Commands in hints: they name the additional VM that the command line named, and the program as it was called, so that
//! they can be copied.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::Path,
};

use crate::{base::MachineAlias, qemu::version::find_program};

/// The program in all texts.
const PROGRAM: &str = "k3s-vm";

/// The command that calls this program: its name if the `PATH` finds it, and its path otherwise.
pub(crate) fn called(first: Option<&OsString>) -> String {
    let own = env::current_exe().unwrap_or_default();
    let found = find_program(PROGRAM).and_then(|path| fs::canonicalize(path).ok());
    if found.is_some_and(|path| path == own) {
        return PROGRAM.to_owned();
    }
    let typed = Path::new(first.map_or(OsStr::new(PROGRAM), OsString::as_os_str));
    // A link of another name is kubectl's or k9s's.
    let is_own_name = typed.file_name() == Some(OsStr::new(PROGRAM));
    let path = if is_own_name { typed } else { &own };
    match path.to_str() {
        Some(path) if path.contains(|c: char| c.is_whitespace() || "'\"\\$".contains(c)) => {
            format!("'{}'", path.replace('\'', "'\\''"))
        }
        Some(path) => path.to_owned(),
        None => PROGRAM.to_owned(),
    }
}

/// The program and the VM in the commands of hints.
#[derive(Debug, Clone)]
pub(crate) struct CommandHints {
    name: Option<MachineAlias>,
    commands: Vec<String>,
    program: String,
}

impl CommandHints {
    /// With the VM of the command line, the names of all commands, and the program as the user called it.
    pub(crate) const fn new(
        name: Option<MachineAlias>,
        commands: Vec<String>,
        program: String,
    ) -> Self {
        Self {
            name,
            commands,
            program,
        }
    }

    /// The text with its commands as they must be typed.
    pub(crate) fn commands_in(&self, text: &str) -> String {
        let mut parts = text.split("k3s-vm ");
        let mut written = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_lowercase() && c != '-');
            let command = &part[..end.unwrap_or(part.len())];
            let is_command = self.commands.iter().any(|name| name == command);
            let is_selector = part.starts_with("-C ") || part.starts_with("--name ");
            // Part of a path, like `/run/k3s-vm `.
            let is_whole = !written.ends_with(['/', '.', '-']);
            written += if is_whole && (is_command || is_selector) {
                &self.program
            } else {
                PROGRAM
            };
            written.push(' ');
            if let (true, Some(name)) = (is_command, &self.name) {
                written += &format!("--name {name} ");
            }
            written += part;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(name: Option<&str>, text: &str) -> String {
        let name = name.map(|name| name.parse().expect(name));
        let verbs = [
            "kubeconfig",
            "reset",
            "resume",
            "setup",
            "ssh-config",
            "start",
        ];
        let program = "k3s-vm".to_owned();
        CommandHints::new(name, verbs.map(str::to_owned).into(), program).commands_in(text)
    }

    #[test]
    fn hints_name_the_selected_vm() {
        for (text, expected) in [
            (
                "recreate the VM: k3s-vm reset && k3s-vm setup",
                "recreate the VM: k3s-vm --name next reset && k3s-vm --name next setup",
            ),
            (
                "paused; to resume: k3s-vm resume",
                "paused; to resume: k3s-vm --name next resume",
            ),
            (
                "take them out first: k3s-vm -C /p kubeconfig --unmerge",
                "take them out first: k3s-vm -C /p kubeconfig --unmerge",
            ),
            ("k3s-vm ssh-config", "k3s-vm --name next ssh-config"),
            ("the k3s-vm starters", "the k3s-vm starters"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(told(Some("next"), text), expected);
            assert_eq!(told(None, text), text);
        }
    }

    #[test]
    fn a_program_off_the_path_is_called_by_its_path() {
        let commands = vec!["setup".to_owned(), "reset".to_owned()];
        let named = CommandHints::new(None, commands, "target/debug/k3s-vm".to_owned());
        for (text, expected) in [
            (
                "recreate it: k3s-vm reset && k3s-vm setup",
                "recreate it: target/debug/k3s-vm reset && target/debug/k3s-vm setup",
            ),
            ("k3s-vm -C /p reset", "target/debug/k3s-vm -C /p reset"),
            ("a k3s-vm on the PATH", "a k3s-vm on the PATH"),
        ] {
            assert_eq!(named.commands_in(text), expected);
        }
    }
}
