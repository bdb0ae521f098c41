//! Shell completions. The script (see `completions`) calls the program with the variable [`PLACE`] and the words so
//! far. The answer has one line for each possible word: the word, a tab, and its meaning. Nothing is changed or
//! started, and slow sources are left out.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write,
    sync::Arc,
    time::Duration,
};

use clap::{Command, CommandFactory, FromArgMatches};
use clap_complete::engine::{
    ArgValueCandidates, ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
    complete,
};

use crate::{
    cli::{args::Cli, context::Context, global::Global, topics},
    image::Catalog,
    k3s::images::Reference,
    machine::{
        access::{images::stock, ports},
        cache::references,
    },
    project::snapshot,
};

/// The variable that requests completions, with the index of the word; the program itself is 0.
const PLACE: &str = "K3S_VM_COMPLETE";

/// How long the guest may take to list its images.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The completions, if `arguments` request them.
pub(crate) fn answer(arguments: &[OsString]) -> Option<String> {
    let place: usize = env::var(PLACE).ok()?.parse().ok()?;
    let begin = arguments.iter().position(|it| it == "--")?;
    let mut words = arguments[begin + 1..].to_vec();
    words.truncate(place + 1);
    let mut command = with_names(Cli::command(), &words);
    let directory = env::current_dir().ok();
    // An error means that nothing is known about the word.
    let mut found = complete(&mut command, words, place, directory.as_deref()).unwrap_or_default();
    // Hidden words are shown once they are begun.
    if !found.iter().all(CompletionCandidate::is_hide_set) {
        found.retain(|it| !it.is_hide_set());
    }
    // Flags are shown if they are begun, or if nothing else is possible.
    let is_flag = |it: &CompletionCandidate| it.get_value().as_encoded_bytes().starts_with(b"-");
    if !found.iter().all(is_flag) {
        found.retain(|it| !is_flag(it));
    }
    let mut lines = String::new();
    for candidate in found {
        let help = candidate.get_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let value = candidate.get_value().to_string_lossy();
        let _ = match help.lines().next() {
            Some(help) => writeln!(lines, "{value}\t{help}"),
            None => writeln!(lines, "{value}"),
        };
    }
    Some(lines)
}

/// The command line, with completers for names.
fn with_names(command: Command, words: &[OsString]) -> Command {
    let words: Arc<[OsString]> = words.into();
    let of = |found: fn(&Context) -> Option<Vec<CompletionCandidate>>| {
        let words = Arc::clone(&words);
        ArgValueCandidates::new(move || {
            let names = context(&words).and_then(|it| found(&it));
            names.unwrap_or_default()
        })
    };
    let named = [
        ("setup", None, "image", of(|_| Some(aliases()))),
        ("cache", Some("export"), "image", of(|_| Some(aliases()))),
        ("snapshot", Some("restore"), "name", of(snapshots)),
        ("snapshot", Some("delete"), "names", of(snapshots)),
        ("image", Some("rm"), "names", of(images)),
        ("port", Some("rm"), "ports", of(forwarded)),
        ("help", None, "words", of(|_| Some(help_words()))),
    ];
    let command = command.mut_arg("directory", |it| it.add(projects(Arc::clone(&words))));
    named
        .into_iter()
        .fold(command, |command, (verb, inner, argument, names)| {
            let add = |command: Command| command.mut_arg(argument, |it| it.add(names));
            command.mut_subcommand(verb, |verb| match inner {
                Some(inner) => verb.mut_subcommand(inner, add),
                None => add(verb),
            })
        })
}

/// The project and cache of the command line, as far as it is written.
fn context(words: &[OsString]) -> Option<Context> {
    let written = &words[..words.len().saturating_sub(1)];
    let command = Cli::command().ignore_errors(true);
    let matches = command.try_get_matches_from(written).ok()?;
    Context::new(&Global::from_arg_matches(&matches).ok()?).ok()
}

/// The commands and topics.
fn help_words() -> Vec<CompletionCandidate> {
    let command = Cli::command();
    let commands = command.get_subcommands().filter(|it| !it.is_hide_set());
    let commands = commands.map(|it| it.get_name().to_owned());
    let topics = topics::TOPICS.iter().map(|it| it.name.to_owned());
    commands
        .chain(topics)
        .map(CompletionCandidate::new)
        .collect()
}

fn aliases() -> Vec<CompletionCandidate> {
    let images = Catalog::builtin().images().iter();
    let images = images.map(|image| image.alias.as_str());
    images.map(CompletionCandidate::new).collect()
}

fn snapshots(context: &Context) -> Option<Vec<CompletionCandidate>> {
    let all = snapshot::list(&context.project).ok()?.into_iter();
    let names = all.map(|it| it.name.to_string());
    Some(names.map(CompletionCandidate::new).collect())
}

fn forwarded(context: &Context) -> Option<Vec<CompletionCandidate>> {
    let all = ports::chosen(&context.project).ok()?.into_iter();
    let ports = all.map(|it| it.host.to_string());
    Some(ports.map(CompletionCandidate::new).collect())
}

fn images(context: &Context) -> Option<Vec<CompletionCandidate>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let listed =
        async { tokio::time::timeout(ANSWER_TIMEOUT, stock::list(&context.project)).await };
    let listed = runtime.block_on(listed);
    runtime.shutdown_background();
    let listed = listed.ok()?.ok()?;
    // The guest sends these names, and the shell reads them: only plain names are passed on.
    let names = listed.iter().map(|it| it.name.as_str());
    let sound = names.filter(|it| it.parse::<Reference>().is_ok());
    Some(sound.flat_map(called).collect())
}

/// Images by their short names, or by whole names once one is begun.
fn called(image: &str) -> Vec<CompletionCandidate> {
    let short = image.strip_prefix("docker.io/");
    let short = short.map(|it| it.strip_prefix("library/").unwrap_or(it));
    let whole = CompletionCandidate::new(image).hide(short.is_some());
    short
        .map(CompletionCandidate::new)
        .into_iter()
        .chain([whole])
        .collect()
}

/// The projects that have VMs, and directories.
fn projects(words: Arc<[OsString]>) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let cache = context(&words).map(|it| it.cache);
        let known = cache
            .map(|it| references::projects(&it))
            .unwrap_or_default();
        let mut found: Vec<_> = known
            .into_iter()
            .filter(|path| {
                let path = path.as_os_str().as_encoded_bytes();
                path.starts_with(current.as_encoded_bytes())
            })
            .map(CompletionCandidate::new)
            .collect();
        if found.is_empty() || !current.is_empty() {
            found.extend(PathCompleter::dir().complete(current));
        }
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_called_as_people_do() {
        for (image, names) in [
            (
                "docker.io/library/tool:1",
                &["tool:1", "docker.io/library/tool:1 (hidden)"][..],
            ),
            (
                "docker.io/team/app:3",
                &["team/app:3", "docker.io/team/app:3 (hidden)"],
            ),
            ("localhost/app:dev", &["localhost/app:dev"]),
        ] {
            let called: Vec<String> = called(image)
                .iter()
                .map(|it| {
                    let hidden = if it.is_hide_set() { " (hidden)" } else { "" };
                    format!("{}{hidden}", it.get_value().to_string_lossy())
                })
                .collect();
            assert_eq!(called, names);
        }
    }
}
