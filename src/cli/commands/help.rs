//! `help`: the help of a command, or a topic.

use std::{io::IsTerminal, process::ExitCode};

use clap::Command;

use crate::cli::{
    error::{CommandError, code},
    terminal::{markup, output::Output},
    topics,
};

/// A command or a topic.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm help\n  \
    k3s-vm help setup\n  \
    k3s-vm help cache export\n  \
    k3s-vm help network             # a topic")]
pub struct Args {
    /// A command, or a topic [default: list both]
    #[arg(value_name = "COMMAND|TOPIC")]
    words: Vec<String>,
}

/// The width of text in a pipe, and the largest on a terminal.
const PIPED: usize = 80;
const WIDEST: usize = 100;

/// Prints the help of a command or topic.
pub(crate) fn run(
    args: &Args,
    mut cli: Command,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    cli.build();
    let topic = args.words.first().and_then(|name| topics::find(name));
    match (find(&mut cli, &args.words), topic) {
        (Some(command), _) => output.data(&command.render_long_help().ansi().to_string()),
        (None, Some(topic)) if args.words.len() == 1 => {
            output.data(&markup::to_terminal(topic.text, width()));
        }
        _ => {
            let what = format!(
                "there is no command and no topic \"{}\"",
                args.words.join(" ")
            );
            let error = CommandError::new(what).with_code(code::USAGE);
            return Err(error.hint("list the commands and topics: k3s-vm help"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn find<'a>(command: &'a mut Command, words: &[String]) -> Option<&'a mut Command> {
    match words {
        [] => Some(command),
        [word, rest @ ..] => find(command.find_subcommand_mut(word)?, rest),
    }
}

/// The width of the terminal that reads the text.
fn width() -> usize {
    let stdout = std::io::stdout();
    if !stdout.is_terminal() {
        return PIPED;
    }
    let size = rustix::termios::tcgetwinsize(&stdout);
    size.map_or(PIPED, |size| usize::from(size.ws_col).clamp(40, WIDEST))
}
