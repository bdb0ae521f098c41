//! From the arguments to the exit code.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory, Parser};

use crate::{
    base::{MachineAlias, umask},
    cli::{
        args::{Cli, Command},
        commands::tool::ON_PATH,
        complete, dispatch,
        error::CommandError,
        global::Global,
        terminal::log,
        terminal::output::Output,
    },
    k3s::tools::Tool,
    project::Project,
};

/// Parses the command line, runs the command, and reports what went wrong.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    if let Some(answer) = complete::answer(&arguments) {
        let output = Output::new(&Global::default(), false, Vec::new());
        output.data(&answer);
        return output.end(ExitCode::SUCCESS);
    }
    let program = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
    let cli = match Cli::try_parse_from(as_wrapper(arguments, Path::new(program))) {
        Ok(cli) => cli,
        // clap's own exit codes: 0 for help, 2 for a mistake.
        Err(error) if error.use_stderr() => error.exit(),
        Err(error) => {
            let output = Output::new(&Global::default(), false, Vec::new());
            output.data(&error.render().ansi().to_string());
            return output.end(ExitCode::SUCCESS);
        }
    };
    let verbs = Cli::command();
    let verbs = verbs.get_subcommands().map(|it| it.get_name().to_owned());
    let output = Output::new(&cli.global, cli.command.prints_events(), verbs.collect());
    match run(cli, &output) {
        Ok(code) => output.end(code),
        Err(error) => output.fail(&error),
    }
}

/// Called through a link named `kubectl` or `k9s`, the program is that wrapper, of the machine in whose `bin/` the
/// link is: the kernel tells what was run, by whatever name a shell has found it.
fn as_wrapper(arguments: Vec<OsString>, program: &Path) -> Vec<OsString> {
    let first = arguments.first();
    let is_bare = first.is_some_and(|it| !it.as_bytes().contains(&b'/'));
    let called = first
        .and_then(|path| Path::new(path).file_name())
        .and_then(|name| name.to_str());
    let Some(tool) = called.and_then(Tool::by_name) else {
        return arguments;
    };
    let mut words = vec![OsString::from("k3s-vm")];
    if let Some(project) = program.parent().and_then(Project::of_bin) {
        let root = match project.root() {
            root if root.as_os_str().is_empty() => Path::new("."),
            root => root,
        };
        // An empty name is that of the project's own machine, whatever K3S_VM_MACHINE says.
        let name = project.alias().map_or("", MachineAlias::as_str);
        words.extend(["-C".into(), root.into(), format!("--name={name}").into()]);
    }
    words.push(tool.name().into());
    if is_bare {
        words.push(format!("--{ON_PATH}").into());
    }
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
        umask::make_private();
    }
    log::init(&cli.global, output)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CommandError::new("cannot start the asynchronous runtime").because(&error)
        })?;
    let result = runtime.block_on(dispatch::run(cli, output));
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
            words(&[
                "k3s-vm",
                "-C",
                "/p",
                "--name=",
                "kubectl",
                "--k3s-vm-on-path",
                "get"
            ])
        );
        assert_eq!(
            called(&["kubectl", "get"], "/p/.k3s-vm/machines/next/bin/kubectl"),
            words(&[
                "k3s-vm",
                "-C",
                "/p",
                "--name=next",
                "kubectl",
                "--k3s-vm-on-path",
                "get"
            ])
        );
        assert_eq!(
            called(&[".k3s-vm/bin/k9s"], ".k3s-vm/bin/k9s"),
            words(&["k3s-vm", "-C", ".", "--name=", "k9s"])
        );
        assert_eq!(
            called(&["k3s-vm", "status"], "/p/.k3s-vm/bin/k3s-vm"),
            words(&["k3s-vm", "status"])
        );
    }

    #[test]
    fn what_is_said_of_a_verb_reaches_its_help() {
        let cli = Cli::command();
        for verb in cli.get_subcommands().filter(|it| !it.is_hide_set()) {
            // A comment on the arguments' type would be lost: the one on the verb takes its place.
            let help = verb.clone().render_long_help().to_string();
            let lost = help.contains(&format!("What `{}` takes", verb.get_name()));
            let says_more = verb.get_long_about().is_some();
            let is_plain = ["completions", "man", "kubectl", "k9s"].contains(&verb.get_name());
            assert!(!lost && (says_more || is_plain), "{}", verb.get_name());
        }
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
