//! From the arguments to the exit code.

use std::{
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
};

use clap::{FromArgMatches, error::ErrorKind};
use nix::sys::signal::{SigSet, Signal};

use crate::{
    base::{MachineAlias, umask},
    cli::{
        args::{self, Cli, Command},
        commands::tool::ON_PATH,
        complete, dispatch,
        error::CommandError,
        global::{self, Global},
        license,
        terminal::{log, machine_flag, output::Output, sanitize},
    },
    k3s::tools::Tool,
    project::Project,
    qemu::log_writer,
};

/// Parses the command line, runs the command, and reports what went wrong.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    if let Some(answer) = complete::answer(&arguments) {
        return print(&answer);
    }
    if matches!(&arguments[..], [_, flag] if flag == license::FLAG) {
        return print(&license::text());
    }
    if arguments.get(1).is_some_and(|it| it == log_writer::FLAG) {
        return match log_writer::run(&arguments[2..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let called = machine_flag::called(arguments.first());
    let program = OsStr::from_bytes(rustix::param::linux_execfn().to_bytes());
    let cli = match parse(as_wrapper(arguments, Path::new(program))) {
        Ok(cli) => cli,
        // clap's own exit codes: 0 for help, 2 for a mistake.
        Err(error) if error.use_stderr() => error.exit(),
        Err(error) => return print(&error.render().ansi().to_string()),
    };
    let commands = args::command();
    let commands = commands
        .get_subcommands()
        .map(|it| it.get_name().to_owned());
    let output = Output::new(
        &cli.global,
        cli.command.prints_events(),
        commands.collect(),
        called,
    );
    let result = run(cli, &output);
    if let Some(reason) = sanitize::log_file_error() {
        output.warning(&format!("the log file is incomplete: {reason}"));
    }
    match result {
        Ok(code) => output.end(code),
        Err(error) => output.fail(&error),
    }
}

/// Prints a text that needs no command.
fn print(text: &str) -> ExitCode {
    let output = Output::new(&Global::default(), false, Vec::new(), String::new());
    output.data(text);
    output.end(ExitCode::SUCCESS)
}

fn parse(arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = args::command();
    // clap would name a flag that was not given, and would reject every command.
    if global::machine_of_environment().is_err() {
        command = command.mut_arg("machine", |it| it.env(None::<&str>));
    }
    if env::var_os("K3S_VM_DEBUG").is_some_and(|it| it.to_str().is_none()) {
        command = command.mut_arg("debug", |it| it.env(None::<&str>));
    }
    let matches = command.try_get_matches_from_mut(arguments)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    if cli.license {
        let message = "--license takes no command beside it";
        return Err(command.error(ErrorKind::ArgumentConflict, message));
    }
    Ok(cli)
}

/// Called through a link named `kubectl` or `k9s`, the program is that tool, for the VM in whose `bin/` the link is.
/// The kernel reports the path that was run, whatever name the shell used.
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
        // An empty name is the project's own VM, whatever K3S_VM_MACHINE says.
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
    // All files of this program and its QEMU are private to the user. Those of kubectl and k9s, and the manual, are
    // not.
    if !matches!(
        cli.command,
        Command::Kubectl(_) | Command::K9s(_) | Command::Man(_)
    ) {
        umask::make_private();
    }
    // Beyond the limit of file sizes (ulimit -f), a write then returns an error instead of killing the program.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    log::init(&cli.global, output)?;
    if cli.global.machine.is_none() && cli.command.is_about_one_vm() {
        global::machine_of_environment()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            CommandError::new("cannot start the asynchronous runtime").because(&error)
        })?;
    let result = runtime.block_on(dispatch::run(cli, output));
    // A thread that still reads the terminal must not delay the exit.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        args::command().debug_assert();
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

    /// The whole command tree without hidden commands.
    fn visible(command: &clap::Command) -> Vec<clap::Command> {
        let inner = command.get_subcommands().filter(|it| !it.is_hide_set());
        std::iter::once(command.clone())
            .chain(inner.flat_map(visible))
            .collect()
    }

    #[test]
    fn each_command_has_a_summary_and_examples() {
        for command in args::command().get_subcommands() {
            let (name, about) = (command.get_name(), command.get_about());
            let about = about.map(ToString::to_string).unwrap_or_default();
            assert!((1..=60).contains(&about.len()), "{name}: {about}");
            assert!(!about.ends_with('.'), "{name}: {about}");
            // A comment on the type of the arguments would be shown in place of the command's own.
            let is_plain = ["kubectl", "k9s", "idle-watch"].contains(&name);
            assert!(is_plain || command.get_long_about().is_some(), "{name}");
            let after = command.get_after_help().expect(name).to_string();
            assert!(after.starts_with("Examples:\n"), "{name}: {after}");
        }
    }

    #[test]
    fn each_command_is_in_one_group() {
        let help = args::command().render_help().to_string();
        for command in args::command().get_subcommands() {
            let line = format!("\n  {:<12} ", command.get_name());
            let expected = usize::from(!command.is_hide_set());
            assert_eq!(help.matches(&line).count(), expected, "{line}");
        }
    }

    #[test]
    fn examples_fit_a_terminal() {
        for command in visible(&args::command()) {
            let after = command.get_after_help().map(ToString::to_string);
            let after = after.unwrap_or_default();
            let examples = after.split("\n\n").next().unwrap_or_default();
            for line in examples.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }

    #[test]
    fn the_short_help_of_setup_has_ten_flags() {
        let mut cli = args::command();
        cli.build();
        let setup = cli.find_subcommand("setup").expect("there");
        let flags = setup.get_arguments().filter(|it| {
            !it.is_hide_set() && !it.is_hide_short_help_set() && it.get_long() != Some("help")
        });
        let flags: Vec<_> = flags.filter(|it| it.get_id() != "version").collect();
        assert_eq!(flags.len(), 10, "{flags:#?}");
    }

    #[test]
    fn the_help_matches_its_snapshot() {
        let mut cli = args::command().term_width(80);
        cli.build();
        let mut shown = String::new();
        let mut commands = visible(&cli);
        commands.retain(|it| it.get_name() != "help" || it.get_bin_name() == Some("k3s-vm help"));
        for command in &mut commands {
            let name = command.get_bin_name().unwrap_or("k3s-vm").to_owned();
            let help = command.render_long_help().to_string();
            // The same for all of them.
            let (own, rest) = help.split_once("Global options:").unwrap_or((&help, ""));
            let after = rest.split_once("\n\nExamples:").map_or("", |it| it.1);
            let after = if after.is_empty() {
                String::new()
            } else {
                format!("Examples:{after}")
            };
            shown += &format!("==== {name}\n{own}{after}\n");
        }
        let lines = shown.lines().map(str::trim_end);
        insta::assert_snapshot!("help", lines.collect::<Vec<_>>().join("\n"));
    }

    /// The commands in fenced code and in `code` of a line, without pipes and redirections.
    fn commands_in(text: &str) -> Vec<String> {
        let text = text.replace("\\\n", " ");
        let mut found = Vec::new();
        for (index, part) in text.split("```").enumerate() {
            if index % 2 == 1 {
                found.extend(part.lines().map(|line| line.trim_start_matches("$ ")));
            } else {
                found.extend(part.split('`').skip(1).step_by(2));
            }
        }
        let parts = found
            .into_iter()
            .flat_map(|line| line.split(['|', ';', '&', '>', '#']));
        let parts = parts
            .map(str::trim)
            .filter(|part| part.starts_with("k3s-vm "));
        let plain = parts.filter(|part| !part.contains(['"', '\'', '$', '(', ')', '<']));
        plain.map(str::to_owned).collect()
    }

    #[test]
    fn the_program_accepts_all_documented_commands() {
        let readme = include_str!("../../README.md");
        let topics = crate::cli::topics::TOPICS.iter().map(|topic| topic.text);
        let examples = visible(&args::command()).into_iter().filter_map(|command| {
            let after = command.get_after_help()?.to_string();
            let examples = after.split("\n\n").next()?.replace("\n  ", "\n");
            Some(format!("```{examples}```"))
        });
        let texts: Vec<String> = std::iter::once(readme)
            .chain(topics)
            .map(str::to_owned)
            .chain(examples)
            .collect();
        let commands: Vec<String> = texts.iter().flat_map(|text| commands_in(text)).collect();
        assert!(commands.len() > 150, "{commands:#?}");
        for line in commands {
            let words = line.split_whitespace().filter(|word| *word != "...");
            let parsed = args::command().try_get_matches_from(words);
            // Prose names commands without what they need.
            let kind = parsed.err().map(|error| error.kind());
            let is_incomplete = matches!(
                kind,
                Some(
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                )
            );
            let is_sound = kind.is_none() || is_incomplete || line == "k3s-vm --license";
            assert!(is_sound, "{line}: {kind:?}");
        }
    }

    #[test]
    fn no_topic_has_the_name_of_a_command() {
        let cli = args::command();
        for topic in crate::cli::topics::TOPICS {
            assert!(cli.find_subcommand(topic.name).is_none(), "{}", topic.name);
            assert!(topic.text.starts_with("# "), "{}", topic.name);
        }
    }
}
