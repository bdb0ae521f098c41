//! `man`: the manual, from the texts of the help. Commands are pages of section 1, topics of section 7.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Command;
use clap_mangen::Man;

use crate::{
    base::{FileError, files},
    cli::{
        error::CommandError,
        terminal::{markup, output::Output},
        topics::{self, TOPICS, Topic},
    },
    machine::MachineError,
};

/// Prints the main page, or writes all pages.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm man | man -l -\n  \
    k3s-vm man ~/.local/share/man/man1      # then: man k3s-vm-setup\n  \
    man k3s-vm-network                      # a topic")]
pub struct Args {
    /// Directory for the pages; for one called man1, the topics are written to man7 beside it
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Readable by all users.
const MODE: u32 = 0o644;

const SOURCE: &str = concat!("k3s-vm ", env!("CARGO_PKG_VERSION"));

const MANUAL: &str = "k3s-vm manual";

/// The topics that are also sections of k3s-vm(1).
const SECTIONS: [(&str, &str); 3] = [
    ("ENVIRONMENT", "environment"),
    ("FILES", "files"),
    ("EXIT STATUS", "exit-codes"),
];

/// Prints the main page of the command line `cli`, or writes all pages.
pub(crate) fn run(
    args: &Args,
    mut cli: Command,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    cli.build();
    let Some(directory) = &args.directory else {
        let page = command_page(&cli, true).map_err(unwritable)?;
        output.data(&page);
        return Ok(ExitCode::SUCCESS);
    };
    let topics_directory = if directory.ends_with("man1") {
        directory.with_file_name("man7")
    } else {
        directory.clone()
    };
    let mut pages = Vec::new();
    for (index, command) in visible(&cli).into_iter().enumerate() {
        let name = format!("{}.1", page_name(command));
        let page = command_page(command, index == 0).map_err(unwritable)?;
        pages.push((directory.join(name), page));
    }
    for topic in TOPICS {
        let name = format!("k3s-vm-{}.7", topic.name);
        pages.push((topics_directory.join(name), topic_page(*topic)));
    }
    for directory in [directory, &topics_directory] {
        make(directory)?;
    }
    for (path, page) in &pages {
        files::write_among_others(path, page.as_bytes(), MODE).map_err(MachineError::from)?;
    }
    tracing::info!("wrote {} pages to {}", pages.len(), directory.display());
    Ok(ExitCode::SUCCESS)
}

fn make(directory: &Path) -> Result<(), CommandError> {
    fs::create_dir_all(directory)
        .map_err(FileError::on("create", directory))
        .map_err(MachineError::from)?;
    Ok(())
}

fn unwritable(error: io::Error) -> CommandError {
    CommandError::new("cannot write a page of the manual").because(&error)
}

/// The command and its subcommands, without the hidden ones and clap's own `help`.
fn visible(command: &Command) -> Vec<&Command> {
    let is_root = command.get_name() == "k3s-vm";
    let inner = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set() && (is_root || inner.get_name() != "help"));
    std::iter::once(command)
        .chain(inner.flat_map(visible))
        .collect()
}

/// The name of the page, like `k3s-vm-cache-export`.
fn page_name(command: &Command) -> &str {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
}

fn command_page(command: &Command, is_main: bool) -> io::Result<String> {
    // The renderer leaves out the help of flags that are hidden from `-h`.
    let shown = command.clone().mut_args(|arg| arg.hide_short_help(false));
    let man = Man::new(shown)
        .title(page_name(command).to_uppercase())
        .source(SOURCE)
        .manual(MANUAL);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    page.extend(synopsis(command).into_bytes());
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let after = command.get_after_help().map(ToString::to_string);
    page.extend(sections(&after.unwrap_or_default()).into_bytes());
    let mut page = String::from_utf8_lossy(&page).into_owned();
    if is_main {
        for (heading, name) in SECTIONS {
            let body = topics::find(name).map(Topic::body).unwrap_or_default();
            page += &format!(".SH \"{heading}\"\n{}", markup::to_roff(body, ".SS"));
        }
    }
    Ok(page)
}

fn synopsis(command: &Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").trim();
    let lines = usage.lines().map(str::trim);
    format!(".SH SYNOPSIS\n{}", markup::literal(lines))
}

fn topic_page(topic: Topic) -> String {
    let name = format!("k3s-vm-{}", topic.name);
    let (title, name) = (
        markup::in_line(&name.to_uppercase()),
        markup::in_line(&name),
    );
    format!(
        ".TH {title} 7 \"\" \"{SOURCE}\" \"{MANUAL}\"\n.SH NAME\n{name} \\- {}\n.SH DESCRIPTION\n{}\
         .SH \"SEE ALSO\"\n.BR k3s\\-vm (1)\n",
        markup::in_line(topic.title()),
        markup::to_roff(topic.body(), ".SH")
    )
}

/// The sections after the options. A line that ends with a colon is a heading, and the lines below it are indented.
/// Examples and lists keep their lines; prose is filled.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    for section in text.split("\n\n") {
        let (heading, body) = section.split_once(":\n").unwrap_or(("NOTES", section));
        let lines = body.lines().map(|line| line.trim_start_matches("  "));
        let body = if ["Examples", "Topics"].contains(&heading) {
            markup::literal(lines)
        } else {
            let lines: Vec<_> = lines.collect();
            format!("{}\n", markup::in_line(&lines.join(" ")))
        };
        roff += &format!(".SH \"{}\"\n{body}", heading.to_uppercase());
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines_and_prose_is_filled() {
        let roff = sections("Examples:\n  a -b\n  .PP \\n\n\nWhen it fails:\n  run `c`");
        let expected = ".SH \"EXAMPLES\"\n.PP\n.RS 4\n.nf\na \\-b\n\\&.PP \\en\n.fi\n.RE\n\
            .SH \"WHEN IT FAILS\"\nrun \\fBc\\fR\n";
        assert_eq!(roff, expected);
    }
}
