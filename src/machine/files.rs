//! The machine's files as they are found: what a start cannot do without, and whether anything would be lost with them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Machine, MachineError, state};
use crate::{
    image::{self, Cache},
    project::{Project, Record},
};

/// Looks at what a start needs before it is begun, for a guest that cannot be let in is found out only minutes later.
///
/// # Errors
///
/// [`MachineError::Gone`], [`MachineError::Damaged`] and [`MachineError::Key`] name the first file that will not do.
pub fn require(project: &Project, record: &Record) -> Result<(), MachineError> {
    let disk = project.disk();
    require_one(&record.image.path, "base image")?;
    require_one(&disk, "disk")?;
    if !image::is_qcow2(&disk)? {
        return Err(MachineError::Damaged {
            what: "disk",
            path: disk,
            reason: "it is no qcow2 image",
        });
    }
    if record.provisioned {
        // The guest knows no other keys, so that there is none to be made anew.
        for key in [project.client_key(), project.host_key()] {
            state::load_key(key)?;
        }
    }
    Ok(())
}

fn require_one(path: &Path, what: &'static str) -> Result<(), MachineError> {
    if path.exists() {
        Ok(())
    } else {
        Err(MachineError::Gone {
            what,
            path: PathBuf::from(path),
        })
    }
}

/// Whether no guest has ever written to the machine's disk: other choices lose nothing then.
pub fn is_untouched(machine: &Machine, record: &Record) -> bool {
    let base = Cache::new(machine.cache.clone()).find_image(record.image.digest);
    let fresh = base.and_then(|base| image::plan(&base, record.disk).ok());
    let disk = fs::metadata(machine.project.disk()).map_or(0, |it| it.len());
    !record.provisioned && fresh.is_some_and(|fresh| disk <= fresh.len() as u64)
}
