//! `completions`: what a shell needs to complete our words.

use std::process::ExitCode;

use clap::{Command, CommandFactory, ValueEnum, builder::PossibleValuesParser};

use crate::{
    cli::{args::Cli, output::Output},
    image::Catalog,
};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
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
    clap_complete::generate(shell, &mut with_names(args.shell), "k3s-vm", &mut script);
    // The generator's script for bash calls a verb of a program with a hyphen in its name by two names.
    let script = String::from_utf8_lossy(&script).replace("__subcmd__", "__");
    output.data(&script);
    ExitCode::SUCCESS
}

/// The command line with what can be named where anything can be said: for shells that go on with files where no name
/// fits, which bash does.
fn with_names(shell: Shell) -> Command {
    let command = Cli::command();
    if shell != Shell::Bash {
        return command;
    }
    let images = Catalog::builtin().images();
    let aliases: Vec<&str> = images.iter().map(|image| image.alias.as_str()).collect();
    command.mut_subcommand("setup", |setup| {
        setup.mut_arg("image", |image| {
            image.value_parser(PossibleValuesParser::new(aliases))
        })
    })
}
