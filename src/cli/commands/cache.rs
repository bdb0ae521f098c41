//! `cache`: the files that all projects share, their users, and the removal of unused ones.

use std::{
    fmt::Write,
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
        interrupt,
        terminal::{
            confirm::{confirm_change, require_terminal},
            output::Output,
            sanitize::sanitize,
        },
    },
    machine::cache::contents::{self, Item, Pruned},
};

/// The arguments of `cache`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm cache list\n  \
    k3s-vm cache list --json | jq '[.items[].size] | add'\n  \
    k3s-vm cache prune              # asks first\n  \
    k3s-vm cache prune --yes        # for scripts\n  \
    k3s-vm cache prune --missing    # also for projects that were deleted by hand\n  \
    k3s-vm cache export shop.tar\n  \
    k3s-vm cache import shop.tar    # on a host without internet\n  \
    k3s-vm cache export - | ssh host k3s-vm cache import -\n\n\
    When it fails:\n  \
    A truncated or damaged archive changes nothing. An archive has its own checksums, so import only what comes from a \
    source that you trust. A VM that was copied from another project is known to `list` and `prune` after its next start.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the files of the cache and the projects that need them
    List {
        /// Print one JSON document with a "schema" number
        #[arg(long)]
        json: bool,
    },
    /// Remove the files that no VM needs
    Prune {
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
        /// Also remove what only VMs need that are not found, e.g. because their project was deleted by hand
        #[arg(long)]
        missing: bool,
    },
    /// Write what a setup needs to an archive
    ///
    /// By default it has what a new VM of this project would be created from, and downloads what is missing. A base image
    /// that is a file of yours is left out. Templates are left out, for they depend on the host.
    Export(cache_archive::Export),
    /// Add the contents of an archive to the cache
    ///
    /// A setup with the same choices needs no internet then. Without flags, it uses the k3s that was stable at the export.
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
            output.document(&document(&context.cache, &contents::list(&context.cache)?))?;
        }
        Verb::List { json: false } => {
            output.data(&sanitize(&table(&contents::list(&context.cache)?)));
        }
        Verb::Prune { yes, missing } => return prune(yes, missing, context, output).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn prune(
    yes: bool,
    missing: bool,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    if !yes && !confirm_prune(missing, context, output)? {
        return Ok(ExitCode::from(code::FAILURE));
    }
    let work = async { Ok(contents::prune(&context.cache, missing).await?) };
    print_pruned(&interrupt::run_until_signal(work).await?, output);
    Ok(ExitCode::SUCCESS)
}

fn confirm_prune(missing: bool, context: &Context, output: &Output) -> Result<bool, CommandError> {
    require_terminal("for confirmation", "k3s-vm cache prune --yes")?;
    let unneeded: Vec<Item> = contents::list(&context.cache)?
        .into_iter()
        .filter(|item| item.users.is_empty() && (missing || item.missing.is_empty()))
        .collect();
    output.data(&sanitize(&table(&unneeded)));
    let question = format!("Remove these files ({})?", size_of(&unneeded));
    confirm_change(&question, output)
}

fn print_pruned(Pruned { removed, kept }: &Pruned, output: &Output) {
    if !kept.is_empty() {
        let places = kept.iter().flat_map(|item| &item.missing);
        let mut places: Vec<String> = places.map(|path| path.display().to_string()).collect();
        places.sort();
        places.dedup();
        output.warning(&format!(
            "kept {} for VMs that are not found in {}; if they were deleted: k3s-vm cache prune --missing",
            size_of(kept),
            places.join(", ")
        ));
    }
    match removed.len() {
        0 if !kept.is_empty() => tracing::info!("nothing was removed"),
        0 => tracing::info!("everything in the cache is in use; nothing to do"),
        1 => tracing::info!("removed 1 file, {}", size_of(removed)),
        files => tracing::info!("removed {files} files, {}", size_of(removed)),
    }
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
    /// The projects that need it and are not found.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    missing: &'a [PathBuf],
    /// The URL or path; null where it is not known or was made on this host.
    origin: Option<&'a str>,
    /// The origin is what an archive says.
    imported: bool,
}

fn document<'a>(cache: &'a Path, items: &'a [Item]) -> Document<'a> {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH);
    let items = items.iter().map(|item| Entry {
        kind: item.kind,
        path: &item.path,
        size: item.size.as_bytes(),
        used: seconds(item.used).unwrap_or_default().as_secs(),
        users: &item.users,
        missing: &item.missing,
        origin: item.origin.as_ref().map(|it| it.from.as_str()),
        imported: item.origin.as_ref().is_some_and(|it| it.imported),
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
        let list = |of: &[PathBuf]| {
            let all: Vec<String> = of.iter().map(|it| it.display().to_string()).collect();
            all.join(", ")
        };
        let users = match (&item.users[..], &item.missing[..]) {
            ([], []) => "needed by no VM".to_owned(),
            ([], missing) => format!("needed by VMs that are not found in {}", list(missing)),
            (users, _) => format!("needed by {}", list(users)),
        };
        let _ = writeln!(table, "{:<26}  last used {used}, {users}", "");
        if let Some(origin) = &item.origin {
            let how = if origin.imported {
                "imported from an archive, which says: "
            } else {
                "from "
            };
            let _ = writeln!(table, "{:<26}  {how}{}", "", origin.from);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::image::Origin;

    fn item() -> Item {
        Item {
            kind: "base image",
            path: "/c/images/a.img".into(),
            size: Size::bytes(1 << 20),
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_000_000),
            users: vec!["/home/ada/shop".into()],
            missing: Vec::new(),
            origin: Some(Origin::new("https://a/disk.img".to_owned(), true)),
        }
    }

    #[test]
    fn the_json_matches_its_snapshot() {
        let json = serde_json::to_string_pretty(&document(Path::new("/c"), &[item()]));
        insta::assert_snapshot!(json.expect("JSON"));
    }

    #[test]
    fn the_table_names_the_origin() {
        insta::assert_snapshot!(table(&[item()]), @r"
        base image           1 MiB  /c/images/a.img
                                    last used 2026-11-18T11:06:40Z, needed by /home/ada/shop
                                    imported from an archive, which says: https://a/disk.img
        ");
    }
}
