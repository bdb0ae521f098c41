//! The global flags and the selector of the VM, which every command takes.

use std::{env, path::PathBuf, str::FromStr};

use clap::{ColorChoice, builder::TypedValueParser};

use crate::base::{MachineAlias, machine_alias::ParseMachineAliasError};

/// What holds for every verb.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Global {
    /// Work on the project of DIR instead of the current directory's
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub directory: Option<PathBuf>,
    /// Work on a further machine of the project, called NAME: each has a disk, ports and a kubeconfig of its own
    #[arg(
        id = "machine",
        long = "name",
        visible_alias = "machine",
        global = true,
        value_name = "NAME",
        env = "K3S_VM_MACHINE",
        hide_env_values = true
    )]
    pub machine: Option<MachineSelector>,
    /// Show what is done in detail
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Show only warnings, errors and results
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show everything, QEMU's command line included
    #[arg(long, global = true, env = "K3S_VM_DEBUG", value_parser = clap::builder::FalseyValueParser::new())]
    pub debug: bool,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
    /// Keep a copy of the log in FILE
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "K3S_VM_LOG_FILE",
        value_parser = clap::builder::OsStringValueParser::new().map(PathBuf::from),
        hide = true
    )]
    pub log_file: Option<PathBuf>,
}

impl Global {
    /// Whether everything is shown. `DEBUG` counts without a flag or `K3S_VM_DEBUG`, where it says yes: other programs
    /// take the names of their parts in it.
    pub(crate) fn is_debug(&self) -> bool {
        let says_yes = |value: String| {
            let value = value.to_lowercase();
            ["1", "y", "yes", "t", "true", "on"].contains(&value.as_str())
        };
        let named = env::var_os("K3S_VM_DEBUG").is_some();
        self.debug || !named && env::var("DEBUG").is_ok_and(says_yes)
    }
}

/// Which machine of the project; an empty name is the project's own one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSelector(pub Option<MachineAlias>);

impl FromStr for MachineSelector {
    type Err = ParseMachineAliasError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Ok(Self(None)),
            name => Ok(Self(Some(name.parse()?))),
        }
    }
}

/// For a verb that has a `--name` of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct MachineFlag {
    /// Work on a further machine of the project, called NAME; before the verb, --name does the same
    #[arg(
        id = "machine",
        long = "machine",
        value_name = "NAME",
        help_heading = "Options of every verb"
    )]
    machine: Option<MachineSelector>,
}
