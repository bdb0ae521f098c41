//! The global flags and the selector of the VM, which every command takes.

use std::{env, fmt::Display, path::PathBuf, str::FromStr};

use clap::{ColorChoice, builder::TypedValueParser};

use crate::{
    base::{MachineAlias, machine_alias::ParseMachineAliasError},
    cli::error::{CommandError, code},
};

/// The flags of every command.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Use the project in DIR [default: the current directory]
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub directory: Option<PathBuf>,
    /// Use the additional VM NAME of the project, with its own disk, ports and kubeconfig
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
    /// Print more detail
    #[arg(short, long, global = true, hide_short_help = true)]
    pub verbose: bool,
    /// Print only warnings, errors and results
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        hide_short_help = true
    )]
    pub quiet: bool,
    /// Print everything, with QEMU's command line
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        env = "K3S_VM_DEBUG",
        hide_env_values = true,
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub debug: bool,
    /// When to use colors
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "WHEN",
        default_value = "auto"
    )]
    pub color: ColorChoice,
    /// Write a copy of the log to FILE
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
    /// Returns `true` with `--debug`, `K3S_VM_DEBUG`, or a `DEBUG` that says yes: other programs put names of their
    /// parts into `DEBUG`.
    pub(crate) fn is_debug(&self) -> bool {
        let says_yes = |value: String| {
            let value = value.to_lowercase();
            ["1", "y", "yes", "t", "true", "on"].contains(&value.as_str())
        };
        let named = env::var_os("K3S_VM_DEBUG").is_some();
        self.debug || !named && env::var("DEBUG").is_ok_and(says_yes)
    }
}

/// The variable that selects the VM.
const MACHINE: &str = "K3S_VM_MACHINE";

/// The VM that the environment selects.
///
/// # Errors
///
/// When it is not a name.
pub(crate) fn machine_of_environment() -> Result<MachineSelector, CommandError> {
    let value = env::var_os(MACHINE).unwrap_or_default();
    let wrong = |reason: &dyn Display| {
        CommandError::new(format!("invalid {MACHINE} {value:?}: {reason}"))
            .hint(format!("unset {MACHINE}, or give it another value"))
            .with_code(code::USAGE)
    };
    match value.to_str() {
        Some(text) => text.parse().map_err(|error| wrong(&error)),
        None => Err(wrong(&"it is not UTF-8")),
    }
}

/// The VM of the project; an empty name is the main VM.
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

/// The selector for a command whose `--name` means something else.
#[derive(Debug, clap::Args)]
pub(crate) struct MachineFlag {
    /// Use the additional VM NAME of the project; before the command, --name does the same
    #[arg(
        id = "machine",
        long = "machine",
        value_name = "NAME",
        help_heading = "Global options"
    )]
    machine: Option<MachineSelector>,
}
