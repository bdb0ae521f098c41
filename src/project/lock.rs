//! One command at a time changes a VM. Readers never take this lock.

use std::{
    fs::{File, Metadata, TryLockError},
    io::{ErrorKind, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    time::{Duration, Instant},
};

use crate::base::{FileError, files};

/// The lock, released when dropped, or by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The reason why the lock was not acquired.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another command kept it for the whole wait.
    #[error("{} is still locked by {holder} after {}", path.display(), humantime::format_duration(*waited))]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// The verb and process id of the command that has it.
        holder: String,
        /// How long this command waited.
        waited: Duration,
    },
    /// The lock file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
}

const POLL: Duration = Duration::from_millis(50);

impl Lock {
    /// Takes the lock for the command `verb`. Waits at most `patience` for another command, and says so.
    ///
    /// # Errors
    ///
    /// [`LockError::Busy`] names the holder when the wait is over.
    pub async fn acquire(path: &Path, verb: &str, patience: Duration) -> Result<Self, LockError> {
        let mut file = files::open_in_place(path, false)?;
        let began = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) if is_at(path, &file) => break,
                // Its holder has removed it. The next try creates another.
                Ok(()) => {
                    return Err(FileError::on("lock", path)(ErrorKind::NotFound.into()).into());
                }
                Err(TryLockError::Error(error)) => {
                    return Err(FileError::on("lock", path)(error).into());
                }
                Err(TryLockError::WouldBlock) if began.elapsed() >= patience => {
                    return Err(LockError::Busy {
                        path: path.to_owned(),
                        holder: holder(&mut file),
                        waited: patience,
                    });
                }
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        tracing::info!(
                            "waiting for {}, which is running on this VM",
                            holder(&mut file)
                        );
                        told = true;
                    }
                    tokio::time::sleep(POLL).await;
                }
            }
        }
        let note = format!("k3s-vm {verb} (process {})\n", process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(note.as_bytes()))
            .map_err(FileError::on("write", path))?;
        Ok(Self { _file: file })
    }
}

fn is_at(path: &Path, file: &File) -> bool {
    let inode = |it: Metadata| (it.dev(), it.ino());
    let there = path.symlink_metadata().map(inode).ok();
    there.is_some() && there == file.metadata().map(inode).ok()
}

/// The holder's name in the lock file, for messages only: the kernel's lock decides.
fn holder(file: &mut File) -> String {
    let mut note = String::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(200).read_to_string(&mut note));
    match note.trim() {
        text if read.is_ok() && !text.is_empty() => text.to_owned(),
        _ => "another command".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiting_command_names_the_holder() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("lock");
        let first = Lock::acquire(&path, "setup", Duration::ZERO)
            .await
            .expect("free");
        let error = Lock::acquire(&path, "stop", Duration::ZERO)
            .await
            .expect_err("held");
        assert!(
            error
                .to_string()
                .contains(&format!("k3s-vm setup (process {})", process::id())),
            "{error}"
        );
        drop(first);
        Lock::acquire(&path, "stop", Duration::ZERO)
            .await
            .expect("free again");
    }
}
