//! Loads images of the host into the node.

use std::{
    io::{self, Read},
    sync::Arc,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe::Receiver,
};

use crate::{
    base::{FileError, Progress, files},
    guest::Ssh,
    k3s::images::{ArchiveError, Guest, Passed, PendingImage, Reference, pass},
    machine::{
        MachineError, State,
        access::{
            images::{
                Source, node,
                source::{Opened, Saving},
            },
            shell,
        },
        error::ImagesError,
    },
    project::Project,
};

/// Sends the images of `source` to the node, except for the layers that it has. Returns the images once the node's
/// containerd knows them. An archive that fails names no image there.
///
/// # Errors
///
/// When the VM does not run, the image or archive does not exist, the node cannot run it, or the guest has
/// no room for it.
pub async fn load(
    project: &Project,
    source: &Source,
    name: Option<&Reference>,
    progress: Arc<dyn Progress>,
) -> Result<Passed, MachineError> {
    State::observe(project)?.running(project)?;
    let mut opened = source.open().await?;
    let ssh = shell::connect(project).await?;
    let path = project.loading();
    let loads = files::open_in_place(&path, false)?;
    let is_alone = loads.try_lock().is_ok();
    let mut guest = node::contents(&ssh).await?;
    let left: Vec<String> = guest.images.iter().map(|it| it.name.clone()).collect();
    let left: Vec<String> = left
        .into_iter()
        .filter(|it| is_alone && it.starts_with(node::LOADING))
        .collect();
    if !left.is_empty() {
        // Left by an interrupted load. Their content is deleted with the names.
        node::remove(&ssh, &left).await?;
        guest = node::contents(&ssh).await?;
    }
    loads.lock_shared().map_err(FileError::on("lock", &path))?;
    let what = source.label();
    let archive = Archive {
        saving: opened.tool(),
        reader: ProgressReader::new(opened, &what, progress),
        what,
    };
    let passed = send(&ssh, guest, archive, name).await?;
    ssh.close().await;
    if passed.nameless > 0 {
        tracing::warn!(
            "{} of its images have no name and are not loaded",
            passed.nameless
        );
    }
    Ok(passed)
}

/// Sends the images that the guest lacks. Returns what was passed on.
async fn send(
    ssh: &Ssh,
    guest: Guest,
    archive: Archive,
    name: Option<&Reference>,
) -> Result<Passed, MachineError> {
    let Archive {
        what,
        reader: source,
        saving,
    } = archive;
    let loading = format!("{}{}-", node::LOADING, uuid::Uuid::new_v4().simple());
    let pipe = |source| ImagesError::Unreadable {
        what: what.clone(),
        source,
    };
    let (reader, writer) = io::pipe().map_err(pipe)?;
    let reader = Receiver::from_owned_fd(reader.into()).map_err(pipe)?;
    let (name, called) = (name.cloned(), loading.clone());
    // A terminal, a file or a tool may be slow.
    let passing =
        tokio::task::spawn_blocking(move || pass(source, &guest, name.as_ref(), &called, writer));
    let mut archive = BufReader::new(reader);
    let imported = if archive.fill_buf().await.map_err(pipe)?.is_empty() {
        None
    } else {
        Some(node::import(ssh, archive, &loading).await?)
    };
    let passed = passing.await.expect("reading an archive does not panic");
    let passed = first_failure(ssh, &what, passed, imported.as_ref(), saving).await?;
    if imported.is_some() {
        name_images(ssh, &passed.images).await?;
    }
    Ok(passed)
}

/// Gives the imported images their names, and checks that the node resolves them.
async fn name_images(ssh: &Ssh, images: &[PendingImage]) -> Result<(), MachineError> {
    let listed = node::name(ssh, images).await?;
    let is_named = |image: &&PendingImage| {
        let named = listed.iter().find(|it| it.name == image.name.as_str());
        named.is_some_and(|it| it.digest == image.digest)
    };
    match images.iter().find(|image| !is_named(image)) {
        Some(image) => Err(ImagesError::Unresolved(image.name.to_string()).into()),
        None => Ok(()),
    }
}

/// The first failure of three steps that depend on one another.
async fn first_failure(
    ssh: &Ssh,
    what: &str,
    passed: Result<Passed, ArchiveError>,
    imported: Option<&Result<(), String>>,
    saving: Saving,
) -> Result<Passed, MachineError> {
    let archive = |source| ImagesError::Archive {
        what: what.to_owned(),
        source,
    };
    match (passed, imported) {
        (Err(ArchiveError::Refused(_)) | Ok(_), Some(Err(said))) => {
            Err(if said.contains("no space left on device") {
                let (what, room) = (what.to_owned(), node::room(ssh).await?);
                ImagesError::GuestFull { what, room }
            } else {
                ImagesError::Runtime(said.clone())
            }
            .into())
        }
        // Each of these may come from a tool that failed.
        (
            Err(
                source @ (ArchiveError::Truncated
                | ArchiveError::Empty
                | ArchiveError::NoTar
                | ArchiveError::NoImages
                | ArchiveError::Incomplete(_)),
            ),
            _,
        ) => {
            saving.ended().await?;
            Err(archive(source).into())
        }
        (Err(source), _) => Err(archive(source).into()),
        // The archive is complete and verified, whatever the tool's exit code.
        (Ok(passed), _) => Ok(passed),
    }
}

/// An archive on its way to the node.
struct Archive {
    /// Its name in messages.
    what: String,
    reader: ProgressReader,
    saving: Saving,
}

/// A reader that reports how far it has read.
struct ProgressReader {
    reader: Box<dyn Read + Send>,
    progress: Arc<dyn Progress>,
    transfer: usize,
}

impl ProgressReader {
    fn new(opened: Opened, what: &str, progress: Arc<dyn Progress>) -> Self {
        Self {
            reader: opened.reader,
            transfer: progress.begin(what, 0, opened.size),
            progress,
        }
    }
}

impl Read for ProgressReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.progress.advance(self.transfer, read as u64);
        Ok(read)
    }
}

impl Drop for ProgressReader {
    fn drop(&mut self) {
        self.progress.end(self.transfer);
    }
}
