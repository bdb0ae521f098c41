//! `completions`: the completion script of a shell.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::cli::terminal::output::Output;

/// Sourced by the shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    source <(k3s-vm completions bash)\n  \
    k3s-vm completions zsh > ~/.zfunc/_k3s-vm\n  \
    k3s-vm completions fish > ~/.config/fish/completions/k3s-vm.fish")]
pub struct Args {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The supported shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &Args, output: &Output) -> ExitCode {
    output.data(match args.shell {
        Shell::Bash => include_str!("completions/bash.sh"),
        Shell::Zsh => include_str!("completions/zsh.zsh"),
        Shell::Fish => include_str!("completions/fish.fish"),
    });
    ExitCode::SUCCESS
}
