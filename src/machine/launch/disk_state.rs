//! The state of the VM's files: those that a start needs, and whether the disk has data.

use std::path::{Path, PathBuf};

use crate::{
    base::Size,
    image::{
        self, TemplateState,
        template::{self, Level},
    },
    machine::{Machine, MachineError, control::keys},
    project::{Project, Record, Suspended},
    qemu::{command_line, guest_abi},
};

/// Checks the files of a start before QEMU runs: a guest without its keys would fail only minutes later.
///
/// # Errors
///
/// [`MachineError::Gone`], [`MachineError::Damaged`] and [`MachineError::Key`] name the first file that will not do.
pub fn require(project: &Project, record: &Record) -> Result<(), MachineError> {
    let disk = project.disk();
    match template::state(&record.image.path) {
        None => require_one(&record.image.path, "base image")?,
        Some(state) => require_template(record, state)?,
    }
    require_one(&disk, "disk")?;
    if let Some(reason) = image::header_fault(&disk, &record.image.path)? {
        return Err(MachineError::Damaged {
            what: "disk",
            path: disk,
            reason,
        });
    }
    if record.provisioned {
        // The guest accepts no other keys, so a missing one cannot be created again.
        for key in [project.client_key(), project.host_key()] {
            keys::load_key(key)?;
        }
    }
    Ok(())
}

/// Requires an unchanged template below the VM's disk, and the template's base image.
fn require_template(record: &Record, state: TemplateState) -> Result<(), MachineError> {
    let path = &record.image.path;
    require_one(path, "template")?;
    if state == TemplateState::Altered {
        return Err(MachineError::Damaged {
            what: "template",
            path: path.clone(),
            reason: "it has changed since the VM was created",
        });
    }
    template::image_below(path, record.image.digest)
        .map_or(Ok(()), |image| require_one(&image, "base image"))
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

/// Returns `true` when no guest has written to the VM's disk: it can be deleted without loss.
pub fn is_untouched(machine: &Machine, record: &Record) -> bool {
    let disk = machine.project.disk();
    let below = &record.image.path;
    // Data of another VM is not lost.
    let own = template::state(below) == Some(TemplateState::Private) && below.exists();
    !record.provisioned
        && (!disk.exists() || image::is_fresh(&disk, record.disk))
        && (!own || image::is_fresh(below, record.disk))
}

/// Returns `true` when k3s is installed on the disk below.
pub(crate) fn has_k3s_preinstalled(record: &Record) -> bool {
    template::state(&record.image.path) == Some(TemplateState::Published)
}

/// Returns `true` when the VM boots from the disk in the cache: no guest has written to it, nor to the overlay on it.
pub(crate) fn needs_template_boot(project: &Project, record: &Record) -> bool {
    let below = &record.image.path;
    !record.provisioned
        && template::state(below) == Some(TemplateState::Private)
        && image::is_fresh(below, record.disk)
        && image::is_fresh(&project.disk(), record.disk)
}

/// Returns `true` when the guest requests its identity after its boot, or after it is resumed from this memory.
pub(crate) fn is_unprovisioned(
    project: &Project,
    record: &Record,
    suspended: Option<&Suspended>,
) -> bool {
    match suspended {
        // The guest of a template at the level `Ready` has its identity from the beginning.
        None => {
            needs_template_boot(project, record)
                && template::level(&record.image.path) == Level::Installed
        }
        Some(it) => guest_abi::has_port(&it.memory.origin.arguments, command_line::IDENTITY_PORT),
    }
}

/// The approximate growth of a new overlay until the node is Ready.
pub(crate) const FIRST_SPACE: Size = Size::gib(2);
