//! `cache`: what all projects share, who needs it, and the end of what nobody needs.

use std::{
    fmt::Write,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use serde::Serialize;

use crate::{
    base::Size,
    cli::{
        commands::cache_archive,
        context::Context,
        error::{CommandError, code},
        terminal::output::Output,
    },
    machine::cache::references::{self, Item},
};

/// What `cache` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm cache list\n  \
    k3s-vm cache list --json | jq '[.items[].size] | add'\n  \
    k3s-vm cache prune              # what no machine needs; asks before\n  \
    k3s-vm cache prune --yes        # without asking, for scripts\n  \
    k3s-vm cache export shop.tar    # all that a setup of this project needs ...\n  \
    k3s-vm cache import shop.tar    # ... on a host without internet\n  \
    k3s-vm cache export - | ssh host k3s-vm cache import -\n\n\
    When it fails:\n  \
    An archive that is cut off, damaged or something else changes nothing. It says itself what its files must\n  \
    come to: take it only from whom you trust.\n  \
    A machine needs what it was last begun with. One that was copied from another project, or that an\n  \
    older k3s-vm has begun, is known from its next start on.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show what the cache holds, and which projects need it
    List {
        /// Print one JSON document; its layout is numbered by "schema"
        #[arg(long)]
        json: bool,
    },
    /// Remove what no machine needs
    Prune {
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Write all that a setup needs into an archive, for a host without internet
    ///
    /// By default that is what a new machine of this project would be made of, and what of it is missing is fetched. A base
    /// image that is a file of your own is left out. So are prepared disks and memory, which depend on the host: the first
    /// setup there makes its own.
    Export(cache_archive::Export),
    /// Take what an archive of `cache export` has; a setup of the same choices needs no internet then
    ///
    /// Without flags, setup takes the k3s then that was the stable one at the export. What nothing needs, `cache prune` removes.
    Import(cache_archive::Import),
}

pub(crate) async fn run(
    args: Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    match args.verb {
        Verb::Export(args) => cache_archive::export(args, context, output).await?,
        Verb::Import(args) => cache_archive::import(&args, context, output).await?,
        Verb::List { json: true } => {
            output.document(&document(
                &context.cache,
                &references::list(&context.cache)?,
            ))?;
        }
        Verb::List { json: false } => output.data(&table(&references::list(&context.cache)?)),
        Verb::Prune { yes } => return prune(yes, context, output),
    }
    Ok(ExitCode::SUCCESS)
}

fn prune(yes: bool, context: &Context, output: &Output) -> Result<ExitCode, CommandError> {
    if !yes {
        if !std::io::stdin().is_terminal() {
            return Err(
                CommandError::new("cannot ask for confirmation: stdin is not a terminal")
                    .hint("to go ahead without asking: k3s-vm cache prune --yes")
                    .with_code(code::USAGE),
            );
        }
        let unneeded: Vec<Item> = references::list(&context.cache)?
            .into_iter()
            .filter(|item| item.users.is_empty())
            .collect();
        output.data(&table(&unneeded));
        if !crate::cli::terminal::confirm::confirm(&format!(
            "Remove {} of it?",
            size_of(&unneeded)
        ))? {
            output.line("nothing was changed");
            return Ok(ExitCode::from(code::FAILURE));
        }
    }
    let gone = references::prune(&context.cache)?;
    match gone.len() {
        0 => tracing::info!("everything in the cache is in use; nothing to do"),
        1 => tracing::info!("removed 1 file, {}", size_of(&gone)),
        files => tracing::info!("removed {files} files, {}", size_of(&gone)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The layout of the JSON document.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    cache: &'a Path,
    items: Vec<Entry<'a>>,
}

#[derive(Debug, Serialize)]
struct Entry<'a> {
    kind: &'static str,
    path: &'a Path,
    /// In bytes.
    size: u64,
    /// In seconds since 1970.
    used: u64,
    /// The projects that need it.
    users: &'a [PathBuf],
}

fn document<'a>(cache: &'a Path, items: &'a [Item]) -> Document<'a> {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH);
    let items = items.iter().map(|item| Entry {
        kind: item.kind,
        path: &item.path,
        size: item.size.as_bytes(),
        used: seconds(item.used).unwrap_or_default().as_secs(),
        users: &item.users,
    });
    Document {
        schema: SCHEMA,
        cache,
        items: items.collect(),
    }
}

fn size_of(items: &[Item]) -> String {
    let bytes = items.iter().map(|item| item.size.as_bytes()).sum();
    Size::bytes(bytes).approximate()
}

fn table(items: &[Item]) -> String {
    let mut table = String::new();
    for item in items {
        let used = humantime::format_rfc3339_seconds(item.used);
        let size = item.size.approximate();
        let _ = writeln!(
            table,
            "{:<15} {size:>10}  {}",
            item.kind,
            item.path.display()
        );
        let users = if item.users.is_empty() {
            "needed by no machine".to_owned()
        } else {
            let users: Vec<String> = item
                .users
                .iter()
                .map(|it| it.display().to_string())
                .collect();
            format!("needed by {}", users.join(", "))
        };
        let _ = writeln!(table, "{:<26}  last used {used}, {users}", "");
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_document_is_as_agreed() {
        let item = Item {
            kind: "base image",
            path: "/c/images/a.img".into(),
            size: Size::bytes(1 << 20),
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000),
            users: vec!["/home/ada/shop".into()],
        };
        let json = serde_json::to_string_pretty(&document(Path::new("/c"), &[item]));
        insta::assert_snapshot!(json.expect("JSON"));
    }
}
