//! `image`: loads container images into the node without a registry, lists and removes them.

use std::{
    fmt::Write,
    io::{IsTerminal, stdin},
    process::ExitCode,
    sync::Arc,
};

use serde::Serialize;

use crate::{
    cli::{
        context::Context,
        error::{CommandError, code},
        global::MachineFlag,
        interrupt,
        terminal::{output::Output, sanitize::sanitize},
    },
    k3s::images::{Listed, Passed, Reference},
    machine::access::images::{Source, load, stock},
};

/// The arguments of `image`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm image load app:dev       # from Docker, Podman or nerdctl\n  \
    k3s-vm image load app.tar base.tar.gz\n  \
    ssh build docker save app:dev | k3s-vm image load -\n  \
    k3s-vm image list\n  \
    k3s-vm image rm app:dev\n\n\
    When it fails:\n  \
    The image must have linux/amd64. A truncated or damaged archive, or one that is too large, leaves the node \
    unchanged. A pod must use the name that `load` prints. With the tag latest, or without a tag, it also needs \
    imagePullPolicy: IfNotPresent or Never, for k3s asks the registry otherwise.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Load images and print the names that pods must use
    Load {
        /// Image of Docker, Podman or nerdctl, an archive, or - for an archive on standard input
        #[arg(required = true, value_name = "REF|FILE|-")]
        images: Vec<String>,
        /// Name of the image in the node
        #[arg(long, value_name = "NAME")]
        name: Option<Reference>,
        #[command(flatten)]
        _machine: MachineFlag,
    },
    /// List the images of the node
    #[command(visible_alias = "ls")]
    List {
        /// Print one JSON document with a "schema" number
        #[arg(long)]
        json: bool,
    },
    /// Remove images from the node
    Rm {
        /// Name as `list` shows it, or the short form
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

pub(crate) async fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    match &args.verb {
        Verb::Load { images, name, .. } => {
            interrupt::run_until_signal(load_all(images, name.as_ref(), context, output)).await?;
        }
        Verb::List { json } => list(*json, context, output).await?,
        Verb::Rm { names } => {
            for name in stock::remove(&context.project, names).await? {
                tracing::info!("removed {name}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn load_all(
    images: &[String],
    name: Option<&Reference>,
    context: &Context,
    output: &Output,
) -> Result<(), CommandError> {
    let usage = |message: &str| CommandError::new(message).with_code(code::USAGE);
    if name.is_some() && images.len() > 1 {
        return Err(usage("one name was given, and more than one image")
            .hint("load them one by one: k3s-vm image load --name NAME IMAGE"));
    }
    if images.iter().any(|it| it == "-") && stdin().is_terminal() {
        return Err(
            usage("cannot read the archive: standard input is a terminal")
                .hint("docker save app:dev | k3s-vm image load -"),
        );
    }
    for image in images {
        let progress = Arc::new(output.bars());
        let source = Source::of(image);
        let passed = load::load(&context.project, &source, name, progress).await?;
        print_loaded(image, &passed, output);
    }
    Ok(())
}

fn print_loaded(image: &str, passed: &Passed, output: &Output) {
    let left_out = passed.left_out.approximate();
    match (passed.sent.as_bytes(), passed.left_out.as_bytes()) {
        (0, _) => tracing::info!("{image}: already on the node"),
        (_, 0) => tracing::info!("{image}: sent {}", passed.sent.approximate()),
        _ => tracing::info!(
            "{image}: sent {}, {left_out} already on the node",
            passed.sent.approximate()
        ),
    }
    for image in &passed.images {
        output.data(&sanitize(&format!("{}\n", image.name)));
    }
    if passed.images.iter().any(|it| it.name.is_pulled_always()) {
        tracing::info!(
            "a pod that uses the tag latest needs imagePullPolicy: IfNotPresent (or Never), or it asks the registry"
        );
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    images: Vec<Image<'a>>,
}

#[derive(Serialize)]
struct Image<'a> {
    name: &'a str,
    digest: &'a str,
    /// The bytes of its compressed layers, to one decimal of their unit.
    approximate_size: u64,
}

async fn list(json: bool, context: &Context, output: &Output) -> Result<(), CommandError> {
    let images = stock::list(&context.project).await?;
    if !json {
        output.data(&sanitize(&table(&images)));
        return Ok(());
    }
    let images = images.iter().map(|image| Image {
        name: &image.name,
        digest: &image.digest,
        approximate_size: image.size.as_bytes(),
    });
    output.document(&Document {
        schema: 1,
        images: images.collect(),
    })
}

/// The digest, shortened as in other tools.
fn table(images: &[Listed]) -> String {
    let width = images
        .iter()
        .map(|it| it.name.len())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut table = format!("{:<width$}  {:>10}  DIGEST\n", "NAME", "SIZE");
    for image in images {
        let digest = image.digest.trim_start_matches("sha256:");
        let short = digest.get(..12).unwrap_or(digest);
        let size = image.size.approximate();
        let _ = writeln!(table, "{:<width$}  {size:>10}  {short}", image.name);
    }
    table
}
