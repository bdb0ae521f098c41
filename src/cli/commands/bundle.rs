//! `doctor --bundle`: an archive with everything that explains a fault, to attach to a report.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};

use crate::{
    base::{Size, files::PRIVATE},
    cli::{
        context::Context,
        error::{CommandError, code},
        terminal::output::Output,
    },
    machine::report::bundle::{self, Part},
};

/// Writes the archive. Its path is printed on stdout.
pub(crate) async fn write(
    file: Option<&Path>,
    findings: &str,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    if file == Some(Path::new("-")) {
        return Err(CommandError::new("cannot write the archive to stdout")
            .hint("name a file: k3s-vm doctor --bundle FILE")
            .with_code(code::USAGE));
    }
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let name: String = now.chars().filter(|c| !"-:".contains(*c)).collect();
    let name = format!("k3s-vm-bundle-{name}");
    let path = file.map_or_else(|| PathBuf::from(format!("{name}.tar.gz")), Path::to_owned);
    let parts = vec![Part::new("doctor", findings), Part::new("host", host())];
    let parts = bundle::bundle(&context.project, parts).await;
    let unwritable = |error: io::Error| {
        let known = error.kind() == ErrorKind::AlreadyExists;
        let error = CommandError::new(format!("cannot write {}", path.display())).because(&error);
        if known {
            error.hint("it is not overwritten; name another file: k3s-vm doctor --bundle FILE")
        } else {
            error
        }
    };
    let archive = archive(&name, &parts).map_err(unwritable)?;
    create(&path, &archive).map_err(unwritable)?;
    let size = Size::bytes(archive.len() as u64).approximate();
    tracing::info!(
        "{} files are in it, {size}; keys, tokens, certificates and passwords are not",
        parts.len()
    );
    tracing::info!("review it before you share it: tar -xzf {}", path.display());
    output.data(&format!("{}\n", path.display()));
    Ok(ExitCode::SUCCESS)
}

/// Writes a new private file. A partial one is removed.
fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(PRIVATE);
    let mut file = options.open(path)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .inspect_err(|_| drop(fs::remove_file(path)))
}

/// Versions of k3s-vm, the kernel and the distribution.
fn host() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    format!(
        "k3s-vm {}\n{}\n{}",
        env!("CARGO_PKG_VERSION"),
        read("/proc/version").trim(),
        read("/etc/os-release"),
    )
}

fn archive(name: &str, parts: &[Part]) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for part in parts {
        let mut header = Header::new_gnu();
        header.set_mode(PRIVATE);
        header.set_size(part.text.len() as u64);
        let path = format!("{name}/{}", part.name);
        archive.append_data(&mut header, path, part.text.as_bytes())?;
    }
    archive.into_inner()?.finish()
}
