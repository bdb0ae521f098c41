//! Resumes a suspended guest.
//!
//! If the memory does not fit any more, the VM boots, with a warning that says why. A temporary obstacle (a port,
//! memory of the host, KVM) is an error, and nothing is lost.

use std::{fs, path::Path};

use tokio::task::spawn_blocking;

use crate::{
    base::{FileError, causes::with_causes, files, sparse},
    machine::{
        MachineError, Spec, Timings,
        control::{terminate::END_TIMEOUT, vcpu},
        guest_config::identity_channel,
        launch::{Launched, Startup, disk_files, spawn},
        memory::compatibility,
        model::{host::Host, timings::TimeSpentIn},
    },
    project::{Project, Record, Suspended, config_values::AccelChoice},
    qemu::{
        Accelerator, Layout, MigrationError, Process, migration, monitor_of, spawn::qemu_output,
    },
};

/// The reason why a suspended VM does not resume.
enum ResumeError {
    /// Its memory is unusable.
    Unusable(String),
    /// Any other reason.
    Other(MachineError),
}

impl<E: Into<MachineError>> From<E> for ResumeError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Resumes a suspended VM; `None` when it has to boot, because it is not suspended, or its memory was discarded.
///
/// # Errors
///
/// The obstacle to its start; the VM stays suspended.
pub(crate) async fn restore(
    startup: Startup<'_>,
    record: &Record,
    timings: &mut Timings,
) -> Result<Option<Launched>, MachineError> {
    let machine = startup.machine;
    let project = startup.project();
    let Some(suspended) = Suspended::load(project)? else {
        return Ok(None);
    };
    let restored = match suspended {
        Ok(suspended) => load_memory(startup, record, &suspended, timings).await,
        Err(reason) => Err(ResumeError::Unusable(format!(
            "{} is damaged ({reason})",
            project.suspended().display()
        ))),
    };
    match restored {
        Ok(launched) => Ok(Some(launched)),
        Err(ResumeError::Other(error)) => Err(error),
        Err(ResumeError::Unusable(reason)) => {
            machine.cleanup_on_failure().await;
            tracing::warn!("booting {} instead of resuming: {reason}", record.name);
            Suspended::discard(project)?;
            Ok(None)
        }
    }
}

async fn load_memory(
    startup: Startup<'_>,
    record: &Record,
    suspended: &Suspended,
    timings: &mut Timings,
) -> Result<Launched, ResumeError> {
    let Startup {
        machine,
        host,
        spec,
        ..
    } = startup;
    let project = startup.project();
    let accelerator = accelerator(host, spec, suspended).await?;
    if let Some(reason) = compatibility::incompatibility(startup, record, suspended, accelerator)? {
        return Err(ResumeError::Unusable(reason));
    }
    if suspended.from.is_none() {
        disk_files::prepare_runtime(project)?;
        tracing::info!("resuming {}", record.name);
    } else {
        disk_files::prepare_start(project)?;
        tracing::info!("resuming {} from a template", record.name);
    }
    machine.adopt_qemu();
    let launched = launch_with_memory(startup, record, suspended, accelerator, timings).await?;
    if record.provisioned {
        // From here on the guest exists only in this QEMU, which is kept.
        machine.keep_qemu();
    }
    vcpu::release(project).await?;
    if !record.provisioned {
        identify(project, &launched.record).await.map_err(|error| {
            let error = with_causes(&error);
            ResumeError::Unusable(format!("cannot send its identity: {error}"))
        })?;
    }
    timings.lap("guest resumes", TimeSpentIn::Own);
    Ok(launched)
}

/// A paused QEMU that has loaded the memory. The checksum is verified meanwhile.
async fn launch_with_memory(
    startup: Startup<'_>,
    record: &Record,
    suspended: &Suspended,
    accelerator: Accelerator,
    timings: &mut Timings,
) -> Result<Launched, ResumeError> {
    let project = startup.project();
    // Opened twice, since each reader starts at the beginning. Reading it while QEMU starts puts it into the page
    // cache.
    let path = suspended.path(project);
    let memory = files::open_plain(&path)?;
    let checksum = files::open_plain(&path)?;
    let checksum = spawn_blocking(move || sparse::checksum(&checksum));
    let launched = spawn::launch(startup, record, accelerator, Some(suspended)).await?;
    timings.lap("start QEMU", TimeSpentIn::Own);
    let checksum = checksum.await.expect("neither panics nor is cancelled");
    if checksum.map_err(FileError::on("read", &path))? != suspended.memory.checksum {
        let reason = format!("{} is damaged", path.display());
        return Err(ResumeError::Unusable(reason));
    }
    timings.lap("memory is verified", TimeSpentIn::Own);
    load(project, startup.host, &launched.process, &path, &memory).await?;
    timings.lap("memory is loaded", TimeSpentIn::Own);
    Ok(launched)
}

/// Makes a guest that was resumed from a template this VM: its disk's size and its identity.
async fn identify(project: &Project, record: &Record) -> Result<(), MachineError> {
    spawn::resize(project, record).await?;
    identity_channel::send_identity(project, record).await
}

/// The accelerator of the choice, unless it is missing only temporarily.
pub(crate) async fn accelerator(
    host: &Host,
    spec: &Spec,
    suspended: &Suspended,
) -> Result<Accelerator, MachineError> {
    let accelerator = host.accelerator(spec.accel).await?;
    let by_kvm = suspended
        .memory
        .origin
        .arguments
        .iter()
        .any(|it| it == "-enable-kvm");
    if by_kvm && accelerator == Accelerator::Tcg && spec.accel == AccelChoice::Auto {
        return Err(MachineError::SuspendedByKvm(host.kvm().await.clone()));
    }
    Ok(accelerator)
}

async fn load(
    project: &Project,
    host: &Host,
    process: &Process,
    path: &Path,
    memory: &fs::File,
) -> Result<(), ResumeError> {
    let mut monitor = monitor_of(project).await?;
    let layout = Layout::of(host.version);
    let refused =
        |words: &str| ResumeError::Unusable(format!("QEMU cannot load the memory: {words}"));
    match migration::load(&mut monitor, layout, path, memory).await {
        Ok(()) => Ok(()),
        Err(MigrationError::Failed(words)) => Err(refused(&words)),
        Err(MigrationError::Monitor(error)) => {
            // QEMU prints an error and ends when it cannot load the memory. A killed QEMU prints nothing.
            let ended = process.ended_within(END_TIMEOUT).await;
            match qemu_output(&project.qemu_log()) {
                Some(words) if ended => Err(refused(&words)),
                _ if ended => Err(MachineError::QemuEnded {
                    during: "its memory".to_owned(),
                }
                .into()),
                _ => Err(error.into()),
            }
        }
    }
}
