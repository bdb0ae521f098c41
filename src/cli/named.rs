//! Commands that people are told to type, for a further machine of a project: they are about that one, too.

use clap::CommandFactory;

use super::args::{Cli, Global};
use crate::base::Nickname;

/// How the program is called in all that it says.
const PROGRAM: &str = "k3s-vm ";

/// Knows the machine, and the verbs.
#[derive(Debug, Clone, Default)]
pub(super) struct Named {
    name: Option<Nickname>,
    verbs: Vec<String>,
}

impl Named {
    /// Of the machine that the command line names.
    pub(super) fn new(global: &Global) -> Self {
        match global.machine.clone().and_then(|which| which.0) {
            None => Self::default(),
            Some(name) => Self {
                name: Some(name),
                verbs: Cli::command()
                    .get_subcommands()
                    .map(|verb| verb.get_name().to_owned())
                    .collect(),
            },
        }
    }

    /// The text, whose commands name the machine.
    pub(super) fn commands_in(&self, text: &str) -> String {
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
    use clap::Parser;

    use super::*;

    fn told(words: &[&str], text: &str) -> String {
        let cli = Cli::try_parse_from(words).expect("a command line");
        Named::new(&cli.global).commands_in(text)
    }

    #[test]
    fn what_is_to_be_typed_is_about_the_machine_in_question() {
        let further = ["k3s-vm", "start", "--name", "next"];
        for (text, expected) in [
            (
                "make it anew: k3s-vm reset && k3s-vm setup",
                "make it anew: k3s-vm --name next reset && k3s-vm --name next setup",
            ),
            (
                "paused; `k3s-vm resume` has it go on",
                "paused; `k3s-vm --name next resume` has it go on",
            ),
            (
                "take them out first: k3s-vm -C /p kubeconfig --unmerge",
                "take them out first: k3s-vm -C /p kubeconfig --unmerge",
            ),
            ("k3s-vm ssh-config", "k3s-vm --name next ssh-config"),
            ("the k3s-vm starters", "the k3s-vm starters"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(told(&further, text), expected);
            assert_eq!(told(&["k3s-vm", "start"], text), text);
        }
    }
}
