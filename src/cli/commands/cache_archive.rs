//! `cache export` and `cache import`: the files of a setup, for a host without internet.

use std::{
    fs::File,
    io::{self, ErrorKind, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use crate::{
    base::{Digest, Progress, Size},
    cli::{
        context::Context,
        error::{CommandError, code},
        interrupt,
        terminal::{
            output::Output,
            stdout::{stdout, unwritable},
        },
    },
    image::{Cache, ImageSource},
    machine::{
        MachineError, Spec,
        cache::archive::{self, ArchiveEntry, ArchiveManifest, Kind},
        error::CacheArchiveError,
        model::spec::image_name,
    },
    project::{Config, approval, user},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// Archive to write, or - for standard output
    #[arg(value_name = "FILE|-", default_value = DEFAULT)]
    file: PathBuf,
    /// Base image: an alias or a URL [default: the project's]
    #[arg(long, value_name = "ALIAS|URL")]
    image: Option<String>,
    /// Expected SHA-256 of the image
    #[arg(long, value_name = "HEX", requires = "image")]
    image_sha256: Option<Digest>,
    /// k3s release [default: the project's, or the stable channel]
    #[arg(long, value_name = "VERSION")]
    k3s_version: Option<String>,
    /// Source of k3s releases; setup on the other host needs the same [default: the project's, or GitHub]
    #[arg(
        long,
        value_name = "URL",
        env = "K3S_VM_K3S_MIRROR",
        hide_env_values = true
    )]
    k3s_mirror: Option<String>,
    /// Export all images and releases of the cache, and download nothing
    #[arg(long, conflicts_with_all = ["image", "image_sha256", "k3s_version"])]
    all: bool,
    /// Print one JSON document with a "schema" number
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// Archive to read, or - for standard input
    #[arg(value_name = "FILE|-", default_value = DEFAULT)]
    file: PathBuf,
    /// Print one JSON document with a "schema" number
    #[arg(long)]
    json: bool,
}

const DEFAULT: &str = "k3s-vm-cache.tar";

const STREAM: &str = "-";

/// The layout of the JSON document.
const SCHEMA: u32 = 1;

pub(crate) async fn export(
    args: Export,
    context: &Context,
    output: &Output,
) -> Result<(), CommandError> {
    let file = args.file.clone();
    let to_stdout = file == Path::new(STREAM);
    let usage = |message: &str| CommandError::new(message).with_code(code::USAGE);
    if to_stdout && args.json {
        return Err(usage("stdout gets either the archive or a document")
            .hint("name a file for the archive: k3s-vm cache export FILE --json"));
    }
    if to_stdout && io::stdout().is_terminal() {
        return Err(
            usage("stdout is a terminal, and an archive is nothing for it")
                .hint("k3s-vm cache export - | ssh HOST k3s-vm cache import -"),
        );
    }
    if !to_stdout && file.symlink_metadata().is_ok() {
        let message = format!("{} is there already", file.display());
        return Err(CommandError::new(message).hint(
            "it is not overwritten; remove it, or name another one: k3s-vm cache export FILE",
        ));
    }
    let json = args.json;
    let cache = Cache::new(context.cache.clone());
    let list = interrupt::run_until_signal(async {
        let list = collect(args, &cache, context, output).await?;
        if to_stdout {
            piped(cache, list, output).await.map(|()| None)
        } else {
            saved(cache, list, &file, output).await.map(Some)
        }
    })
    .await?;
    let Some(list) = list else {
        return Ok(());
    };
    if json {
        let items = list.files.iter().map(|file| Item::of(file, None));
        return output.document(&Document::of(Some(&file), items.collect()));
    }
    output.data(&format!("{}\n", file.display()));
    Ok(())
}

async fn collect(
    args: Export,
    cache: &Cache,
    context: &Context,
    output: &Output,
) -> Result<ArchiveManifest, CommandError> {
    if args.all {
        return Ok(archive::collect_all(cache)?);
    }
    let project = &context.project;
    let image: Option<ImageSource> = args
        .image
        .map(|image| image.parse())
        .transpose()
        .map_err(MachineError::from)?;
    let flags = Config {
        image: image.map(|image| image_name(&image, project)),
        image_sha256: args.image_sha256,
        k3s_version: args.k3s_version,
        k3s_mirror: args.k3s_mirror,
        ..Config::default()
    };
    let config = approval::load(project).map_err(MachineError::from)?;
    let users = user::config(false).map_err(MachineError::from)?;
    let spec = Spec::resolve(&flags.over(config).over(users), None, project)?;
    Ok(archive::collect(cache, &spec, &output.progress()).await?)
}

/// Writes the archive to a temporary file beside its place, so that only a complete one has its name.
async fn saved(
    cache: Cache,
    list: ArchiveManifest,
    path: &Path,
    output: &Output,
) -> Result<ArchiveManifest, CommandError> {
    let unwritable = |error: io::Error| {
        CommandError::new(format!("cannot write {}", path.display())).because(&error)
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let temporary = tempfile::Builder::new()
        .prefix(".k3s-vm-")
        .tempfile_in(folder)
        .map_err(unwritable)?;
    let file = temporary.as_file().try_clone().map_err(unwritable)?;
    let list = written(cache, list, file, output).await?;
    persisted(temporary, path).map_err(unwritable)?;
    tracing::info!(
        "{} files are in it, {}",
        list.files.len(),
        size_of(list.files.iter())
    );
    Ok(list)
}

fn persisted(temporary: NamedTempFile, path: &Path) -> io::Result<()> {
    temporary.as_file().sync_all()?;
    temporary.persist_noclobber(path)?;
    Ok(())
}

/// A reader that closed the pipe is not an error.
async fn piped(cache: Cache, list: ArchiveManifest, output: &Output) -> Result<(), CommandError> {
    let stdout = stdout().map_err(|error| unwritable(&error))?;
    match written(cache, list, stdout, output).await {
        Err(MachineError::CacheArchive(CacheArchiveError::Write(error)))
            if error.kind() == ErrorKind::BrokenPipe =>
        {
            Ok(())
        }
        written => Ok(written.map(drop)?),
    }
}

/// In a thread, so that Ctrl-C is handled meanwhile.
async fn written(
    cache: Cache,
    list: ArchiveManifest,
    file: impl Write + Send + 'static,
    output: &Output,
) -> Result<ArchiveManifest, MachineError> {
    let progress = output.copying();
    spawn_blocking(move || {
        archive::write(&cache, &list, file, &progress)?;
        Ok(list)
    })
    .await
    .expect("neither panics nor is cancelled")
}

/// Opening a named pipe waits for its writer; signals are handled meanwhile.
async fn open(path: PathBuf) -> Result<File, CommandError> {
    spawn_blocking(move || {
        File::open(&path).map_err(|error| {
            CommandError::new(format!("cannot open {}", path.display())).because(&error)
        })
    })
    .await
    .expect("neither panics nor is cancelled")
}

pub(crate) async fn import(
    args: &Import,
    context: &Context,
    output: &Output,
) -> Result<(), CommandError> {
    let cache = Cache::new(context.cache.clone());
    let progress: Arc<dyn Progress> = Arc::new(output.copying());
    let work = async {
        if args.file == Path::new(STREAM) {
            if io::stdin().is_terminal() {
                return Err(CommandError::new(
                    "cannot read the archive: standard input is a terminal",
                )
                .with_code(code::USAGE)
                .hint("ssh HOST k3s-vm cache export - | k3s-vm cache import -"));
            }
            return Ok(archive::import(&cache, io::stdin(), progress).await?);
        }
        let file = open(args.file.clone()).await?;
        archive::import(&cache, file, progress)
            .await
            .map_err(|error| of_file(&args.file, error))
    };
    let taken = interrupt::run_until_signal(work).await?;
    if args.json {
        let items = taken.iter().map(|(file, was)| Item::of(file, Some(*was)));
        return output.document(&Document::of(None, items.collect()));
    }
    let new: Vec<&ArchiveEntry> = taken
        .iter()
        .filter_map(|(file, was_there)| (!was_there).then_some(file))
        .collect();
    for (file, was_there) in &taken {
        let there = if *was_there { ", which was there" } else { "" };
        tracing::info!("{}{there}", file.name);
    }
    match new.len() {
        0 => tracing::info!("everything is already in the cache; nothing to do"),
        files => tracing::info!("imported {files} files, {}", size_of(new.into_iter())),
    }
    Ok(())
}

/// Adds the archive's name to an error.
fn of_file(path: &Path, error: MachineError) -> CommandError {
    let is_of_it = matches!(error, MachineError::CacheArchive(_));
    let mut error = CommandError::from(error);
    if is_of_it {
        error.message = format!("cannot import {}: {}", path.display(), error.message);
    }
    error
}

fn size_of<'a>(files: impl Iterator<Item = &'a ArchiveEntry>) -> String {
    Size::bytes(files.map(|it| it.size).sum()).approximate()
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    archive: Option<&'a Path>,
    files: Vec<Item<'a>>,
}

impl<'a> Document<'a> {
    fn of(archive: Option<&'a Path>, files: Vec<Item<'a>>) -> Self {
        let schema = SCHEMA;
        Self {
            schema,
            archive,
            files,
        }
    }
}

#[derive(Serialize)]
struct Item<'a> {
    kind: Kind,
    name: &'a str,
    /// In bytes.
    size: u64,
    sha256: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    was_there: Option<bool>,
}

impl<'a> Item<'a> {
    fn of(file: &'a ArchiveEntry, was_there: Option<bool>) -> Self {
        Self {
            kind: file.kind,
            name: &file.name,
            size: file.size,
            sha256: file.sha256,
            was_there,
        }
    }
}
