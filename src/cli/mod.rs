//! The terminal's side: arguments, output, errors and exit codes. Nothing below knows clap or a terminal.

pub mod args;
mod canvas;
pub mod commands;
mod context;
mod error;
mod events;
mod hints;
mod interrupt;
mod log;
mod output;
mod plain;

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
};

use clap::Parser;
use nix::sys::stat::{Mode, umask};

use self::{
    args::{Cli, Command},
    error::CommandError,
    output::Output,
};
use crate::cluster::tools::Tool;

/// Parses the command line, runs the command, and reports what went wrong.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let program = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
    let cli = match Cli::try_parse_from(as_wrapper(arguments, Path::new(program))) {
        Ok(cli) => cli,
        // clap prints help to stdout and mistakes to stderr, with its own exit codes 0 and 2.
        Err(error) => error.exit(),
    };
    let output = Output::new(&cli.global, cli.command.tells_events());
    match run(cli, &output) {
        Ok(code) => code,
        Err(error) => output.fail(&error),
    }
}

/// Called through a link named `kubectl` or `k9s`, the program is that wrapper, of the project whose `.k3s-vm/bin` the
/// link is in: the kernel tells what was run, by whatever name a shell has found it.
fn as_wrapper(arguments: Vec<OsString>, program: &Path) -> Vec<OsString> {
    let called = arguments
        .first()
        .and_then(|path| Path::new(path).file_name())
        .and_then(|name| name.to_str());
    let Some(tool) = called.and_then(Tool::by_name) else {
        return arguments;
    };
    let project = program
        .parent()
        .filter(|bin| bin.ends_with(".k3s-vm/bin"))
        .and_then(|bin| bin.ancestors().nth(2))
        .map(|root| {
            if root.as_os_str().is_empty() {
                Path::new(".")
            } else {
                root
            }
        });
    let mut words = vec![OsString::from("k3s-vm")];
    if let Some(root) = project {
        words.extend([OsString::from("-C"), root.into()]);
    }
    words.push(tool.name().into());
    words.extend(arguments.into_iter().skip(1));
    words
}

fn run(cli: Cli, output: &Output) -> Result<ExitCode, CommandError> {
    // All that this program and its QEMU make is the user's alone. What kubectl and k9s make is not ours, and
    // a manual is everybody's.
    if !matches!(
        cli.command,
        Command::Kubectl(_) | Command::K9s(_) | Command::Man(_)
    ) {
        umask(Mode::from_bits_truncate(0o077));
    }
    log::init(&cli.global, output)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CommandError::new("cannot start the asynchronous runtime").because(&error)
        })?;
    let result = runtime.block_on(commands::run(cli, output));
    // A thread that still reads the terminal must not hold the exit up.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_link_named_kubectl_is_the_wrapper() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let called =
            |arguments: &[&str], program: &str| as_wrapper(words(arguments), Path::new(program));
        assert_eq!(
            called(&["/p/bin/kubectl", "get", "-h"], "/p/bin/kubectl"),
            words(&["k3s-vm", "kubectl", "get", "-h"])
        );
        assert_eq!(
            called(&["kubectl", "get"], "/p/.k3s-vm/bin/kubectl"),
            words(&["k3s-vm", "-C", "/p", "kubectl", "get"])
        );
        assert_eq!(
            called(&[".k3s-vm/bin/k9s"], ".k3s-vm/bin/k9s"),
            words(&["k3s-vm", "-C", ".", "k9s"])
        );
        assert_eq!(
            called(&["k3s-vm", "status"], "/p/.k3s-vm/bin/k3s-vm"),
            words(&["k3s-vm", "status"])
        );
    }

    #[test]
    fn every_verb_has_examples_and_a_way_out() {
        for verb in Cli::command().get_subcommands() {
            let help = verb.clone().render_long_help().to_string();
            for part in ["Examples:", "When it fails:"] {
                assert!(help.contains(part), "{} lacks {part}", verb.get_name());
            }
        }
    }
}
