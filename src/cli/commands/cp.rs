//! `cp`: copies files and directories between the host and the guest.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use crate::{
    base::Progress,
    cli::{
        context::Context,
        error::{CommandError, code},
        interrupt::Signals,
        terminal::output::Output,
    },
    machine::access::copy,
};

/// The arguments of `cp`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm cp app.yaml :/var/lib/rancher/k3s/server/manifests/\n  \
    k3s-vm cp :/etc/rancher/k3s/k3s.yaml .\n  \
    k3s-vm cp ./site/. guest:/srv/www        # its contents\n  \
    k3s-vm cp ./guest:odd.txt :/tmp          # a file of the host with a colon\n\n\
    When it fails:\n  \
    No incomplete copy is left. An existing directory keeps its mode and its other files. Copies from the guest are \
    yours, copies to the guest are root's. Files in /proc and /sys have no size: use k3s-vm ssh cat.")]
pub struct Args {
    /// Files and directories to copy
    #[arg(required = true, value_name = "SRC")]
    sources: Vec<PathBuf>,
    /// Destination; a directory if there are several sources
    #[arg(value_name = "DST")]
    target: PathBuf,
}

/// One side of a copy.
enum Place<'a> {
    Host(&'a PathBuf),
    Guest(String),
}

pub(crate) async fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let target = place(&args.target)?;
    let (mut host, mut guest) = (Vec::new(), Vec::new());
    for source in &args.sources {
        match place(source)? {
            Place::Host(path) => host.push(path.clone()),
            Place::Guest(path) => guest.push(path),
        }
    }
    let progress: Arc<dyn Progress> = Arc::new(output.copying());
    let work = async {
        Ok(match target {
            Place::Guest(target) if guest.is_empty() => {
                copy::to_guest(&context.project, &host, &target, &progress).await?
            }
            Place::Host(target) if host.is_empty() => {
                copy::to_host(&context.project, &guest, target, &progress).await?
            }
            _ => return Err(one_sided()),
        })
    };
    let mut signals = Signals::listen()?;
    let warnings = tokio::select! {
        warnings = work => warnings?,
        code = signals.next() => {
            let error = CommandError::new("interrupted; incomplete files were removed");
            return Err(error.with_code(code));
        }
    };
    for warning in warnings {
        output.warning(&format!("copied with differences: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn one_sided() -> CommandError {
    CommandError::new("a copy goes from this host to the guest, or from the guest to this host")
        .hint("the guest's paths begin with a colon: k3s-vm cp app.yaml :/srv/")
        .with_code(code::USAGE)
}

/// A path of the guest has a colon before its first slash, with nothing or `guest` before it.
fn place(path: &PathBuf) -> Result<Place<'_>, CommandError> {
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes == b"-" {
        let error = CommandError::new("nothing is copied to stdout or from stdin");
        let error = error.hint("for a file: k3s-vm ssh cat FILE; called -, it is ./-");
        return Err(error.with_code(code::USAGE));
    }
    let Some(of_guest) = bytes.strip_prefix(b"guest:").or(bytes.strip_prefix(b":")) else {
        return Ok(Place::Host(path));
    };
    let text = std::str::from_utf8(of_guest).map_err(|_| {
        CommandError::new(format!("invalid path {path:?}: expected UTF-8")).with_code(code::USAGE)
    })?;
    let text = text.strip_prefix("~/").unwrap_or(text);
    Ok(Place::Guest(match text {
        "" | "~" => ".".to_owned(),
        // The guest's programs would take a leading minus for an option.
        text if text.starts_with('-') => format!("./{text}"),
        text => text.to_owned(),
    }))
}
