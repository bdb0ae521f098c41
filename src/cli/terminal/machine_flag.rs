//! Commands that people are told to type, for a further machine of a project: they are about that one, too.

use crate::base::MachineAlias;

/// How the program is called in all that it says.
const PROGRAM: &str = "k3s-vm ";

/// Knows the machine, and the verbs.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommandHints {
    name: Option<MachineAlias>,
    verbs: Vec<String>,
}

impl CommandHints {
    /// Of the machine that the command line names, and the program's commands.
    pub(crate) fn new(name: Option<MachineAlias>, verbs: Vec<String>) -> Self {
        Self { name, verbs }
    }

    /// The text, whose commands name the machine.
    pub(crate) fn commands_in(&self, text: &str) -> String {
        let Some(name) = &self.name else {
            return text.to_owned();
        };
        let mut parts = text.split(PROGRAM);
        let mut told = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_lowercase() && c != '-');
            let verb = &part[..end.unwrap_or(part.len())];
            told += PROGRAM;
            if self.verbs.iter().any(|it| it == verb) {
                told += &format!("--name {name} ");
            }
            told += part;
        }
        told
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
        CommandHints::new(name, verbs.map(str::to_owned).into()).commands_in(text)
    }

    #[test]
    fn what_is_to_be_typed_is_about_the_machine_in_question() {
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
}
