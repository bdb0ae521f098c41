//! The identity port: the host sends an unprovisioned guest its identity, as one tar archive.

use qapi::qmp;

use crate::{
    base::files::{self, PRIVATE},
    machine::{MachineError, guest_config::cidata},
    project::{Project, Record},
    qemu::{command_line, monitor_of},
    seed::SeedFile,
};

/// Sends a guest that waits for it its identity, as a tar archive whose last file is `machine` (see capture-point.sh).
///
/// # Errors
///
/// When a key cannot be read or QEMU does not pass it on.
pub(crate) async fn send_identity(project: &Project, record: &Record) -> Result<(), MachineError> {
    let entropy: [u8; 64] = rand::random();
    let mut files = cidata::identity(project, record)?;
    files.push(SeedFile {
        name: "entropy",
        content: entropy.to_vec(),
    });
    files.sort_by_key(|file| file.name == "machine");
    let path = project.identity();
    files::write(&path, &archive(&files), PRIVATE)?;
    let backend = qmp::ChardevFile {
        base: qmp::ChardevCommon {
            logappend: None,
            logfile: None,
        },
        append: None,
        in_: Some(path.to_string_lossy().into_owned()),
        out: "/dev/null".to_owned(),
    };
    let mut monitor = monitor_of(project).await?;
    let told = monitor
        .execute(qmp::chardev_change {
            id: command_line::IDENTITY_CHARDEV.to_owned(),
            backend: qmp::ChardevBackend::file(backend.into()),
        })
        .await;
    files::remove_if_exists(&path)?;
    told?;
    Ok(())
}

fn archive(files: &[SeedFile]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let memory = "memory takes what is written to it";
    for SeedFile { name, content } in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(PRIVATE);
        builder
            .append_data(&mut header, name, content.as_slice())
            .expect(memory);
    }
    builder.into_inner().expect(memory)
}
