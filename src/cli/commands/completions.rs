//! `completions`: what a shell needs to complete our words.

use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};

use crate::cli::{args::Cli, output::Output};

/// To be sourced by the shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    source <(k3s-vm completions bash)\n  \
    k3s-vm completions zsh > ~/.zfunc/_k3s-vm\n  \
    k3s-vm completions fish > ~/.config/fish/completions/k3s-vm.fish\n\n\
    When it fails:\n  \
    Only bash, zsh and fish are known.")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The shells that are known.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(args: &Args, output: &Output) -> ExitCode {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "k3s-vm", &mut script);
    output.data(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}
