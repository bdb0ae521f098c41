//! `man`: the manual, of the same words as the help.

use std::{fmt::Write, fs, io, path::PathBuf, process::ExitCode};

use clap::Command;
use clap_mangen::Man;

use crate::{
    base::{FileError, files},
    cli::{error::CommandError, terminal::output::Output},
    machine::MachineError,
};

/// Prints the main page, or writes all pages.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm man | man -l -\n  \
    k3s-vm man ~/.local/share/man/man1      # then: man k3s-vm-setup\n\n\
    When it fails:\n  \
    The directory cannot be made or written; the message names it.")]
pub struct Args {
    /// Where the pages go; made when it is missing
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Pages are read by everybody.
const MODE: u32 = 0o644;

/// With the program's command line.
pub(crate) fn run(args: &Args, cli: Command, output: &Output) -> Result<ExitCode, CommandError> {
    let mut command = cli.disable_help_subcommand(true);
    command.build();
    let Some(directory) = &args.directory else {
        let page = page(command).map_err(unwritable)?;
        output.data(&String::from_utf8_lossy(&page));
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(directory)
        .map_err(FileError::on("create", directory))
        .map_err(MachineError::from)?;
    let mut written = 0;
    for command in with_verbs(command) {
        let name = Man::new(command.clone()).get_filename();
        let page = page(command).map_err(unwritable)?;
        files::write_among_others(&directory.join(name), &page, MODE)
            .map_err(MachineError::from)?;
        written += 1;
    }
    tracing::info!("wrote {written} pages to {}", directory.display());
    Ok(ExitCode::SUCCESS)
}

fn unwritable(error: io::Error) -> CommandError {
    CommandError::new("cannot write a page of the manual").because(&error)
}

/// The program, its verbs, and theirs.
fn with_verbs(command: Command) -> Vec<Command> {
    let verbs: Vec<Command> = command.get_subcommands().cloned().collect();
    std::iter::once(command)
        .chain(verbs.into_iter().flat_map(with_verbs))
        .collect()
}

fn page(command: Command) -> io::Result<Vec<u8>> {
    let verbs = command.has_subcommands();
    let after = command.get_after_help().map(ToString::to_string);
    let man = Man::new(command);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if verbs {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend(sections(&after.unwrap_or_default()).into_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// What stands behind the options: a heading is a line that ends with a colon, and what is indented below it keeps its
/// lines.
fn sections(text: &str) -> String {
    let mut roff = String::new();
    for line in text.lines() {
        let _ = match line.strip_suffix(':') {
            Some(heading) if !line.starts_with(' ') => {
                writeln!(roff, ".fi\n.SH \"{}\"\n.nf", heading.to_uppercase())
            }
            _ if line.is_empty() => writeln!(roff, ".fi\n.PP"),
            _ => writeln!(roff, "{}", literal(line.strip_prefix("  ").unwrap_or(line))),
        };
    }
    roff + ".fi\n"
}

/// A line that does not steer the formatter.
fn literal(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) {
        format!("\\&{line}")
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines_and_steer_nothing() {
        let roff = sections("Examples:\n  a -b\n  .PP \\n\n\nWhen it fails:\n  no");
        let expected = ".fi\n.SH \"EXAMPLES\"\n.nf\na \\-b\n\\&.PP \\en\n.fi\n.PP\n.fi\n.SH \"WHEN IT FAILS\"\n.nf\nno\n.fi\n";
        assert_eq!(roff, expected);
    }
}
