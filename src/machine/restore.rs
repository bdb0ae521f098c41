//! The other half of `stop --suspend`: a start that goes on where the guest was.
//!
//! What has changed meanwhile so that the memory is of no use any more is told in a word, and the machine boots. What only
//! keeps it from starting now (a port, memory of the host, a KVM that does not work) is an error, and nothing is lost.

use std::{fs, path::Path};

use tokio::task::spawn_blocking;

use super::{
    Limits, Machine, MachineError, Spec, Timings, boot, host::Host, make, memory, prepare, resume,
    settings, suspend::ENDING, timings::Whose,
};
use crate::{
    base::{FileError, files, sparse},
    project::{Project, Record, Suspended, config::AccelChoice, suspended::Stamp},
    qemu::{
        Accelerator, Layout, MigrationError, Monitor, Process, migration, process::said, visible,
    },
};

/// Why a suspended machine does not go on.
enum Obstacle {
    /// Its memory is of no use any more.
    Unusable(String),
    /// All else.
    Other(MachineError),
}

impl<E: Into<MachineError>> From<E> for Obstacle {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// Has a suspended machine go on; `None` when it is to boot, for it is not suspended or not any more.
///
/// # Errors
///
/// What keeps it from starting; it is suspended then as before.
pub(super) async fn restore(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    record: &mut Record,
    timings: &mut Timings,
) -> Result<Option<(Process, Limits)>, MachineError> {
    let project = &machine.project;
    let Some(suspended) = Suspended::load(project)? else {
        return Ok(None);
    };
    let restored = match suspended {
        Ok(suspended) => go_on(machine, host, spec, record, &suspended, timings).await,
        Err(reason) => Err(Obstacle::Unusable(format!(
            "{} is damaged ({reason})",
            project.suspended().display()
        ))),
    };
    match restored {
        Ok(running) => Ok(Some(running)),
        Err(Obstacle::Other(error)) => Err(error),
        Err(Obstacle::Unusable(reason)) => {
            machine.abandon().await;
            tracing::warn!("{} boots instead of going on: {reason}", record.name);
            Suspended::discard(project)?;
            Ok(None)
        }
    }
}

async fn go_on(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    record: &mut Record,
    suspended: &Suspended,
    timings: &mut Timings,
) -> Result<(Process, Limits), Obstacle> {
    let project = &machine.project;
    let accelerator = accelerator(host, spec, suspended).await?;
    if let Some(reason) = obstacle(project, host, spec, record, suspended, accelerator)? {
        return Err(Obstacle::Unusable(reason));
    }
    let limits = Limits::for_start(accelerator, spec.timeout);
    if suspended.from.is_none() {
        make::prepare_runtime(project)?;
        tracing::info!("resuming {}", record.name);
    } else {
        make::prepare_start(project)?;
        tracing::info!("{} goes on from a prepared memory", record.name);
    }
    machine.mark_launched();
    // Opened twice, for each reads it from its beginning; and here while QEMU starts, which then finds it read.
    let path = suspended.path(project);
    let memory = files::open_plain(&path)?;
    let checksum = files::open_plain(&path)?;
    let checksum = spawn_blocking(move || sparse::checksum(&checksum));
    let process = boot::launch(machine, host, spec, record, accelerator, Some(suspended)).await?;
    timings.end_of("start QEMU", Whose::Own);
    let checksum = checksum.await.expect("neither panics nor is cancelled");
    if checksum.map_err(FileError::on("read", &path))? != suspended.memory.checksum {
        let reason = format!("{} is damaged", path.display());
        return Err(Obstacle::Unusable(reason));
    }
    timings.end_of("memory is verified", Whose::Own);
    load(project, host, &process, &path, &memory).await?;
    timings.end_of("memory is loaded", Whose::Own);
    if record.provisioned {
        // From here on the guest lives in this QEMU alone, which stays whatever comes.
        machine.mark_arrived();
    }
    resume::release(project).await?;
    if !record.provisioned {
        let sent = async {
            prepare::resize(project, record).await?;
            prepare::tell(project, record).await
        };
        sent.await
            .map_err(|error| Obstacle::Unusable(format!("its identity was not sent: {error}")))?;
    }
    timings.end_of("guest goes on", Whose::Own);
    Ok((process, limits))
}

/// The accelerator of the choice, unless it is one that is missing only now.
async fn accelerator(
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

/// Why the memory is of no use, in words; as far as that is seen without reading it.
///
/// # Errors
///
/// When something cannot be looked at.
pub(super) fn obstacle(
    project: &Project,
    host: &Host,
    spec: &Spec,
    record: &Record,
    suspended: &Suspended,
    accelerator: Accelerator,
) -> Result<Option<String>, MachineError> {
    let launch = boot::plan(project, host, spec, record, accelerator, Some(suspended))?;
    // The seed is made anew where it is gone.
    let seed = project.seed();
    let mut disks = launch.attachments.iter().map(|it| &it.file);
    if let Some(disk) = disks.find(|it| !it.exists() && **it != seed) {
        return Ok(Some(format!("{} is gone", disk.display())));
    }
    let memory = &suspended.memory;
    let arguments = launch.arguments().into_iter();
    let now = visible::visible(arguments.filter_map(|it| it.into_string().ok()));
    if let Some(difference) = memory::difference(host, &memory.origin, &now)? {
        return Ok(Some(difference));
    }
    if Stamp::of(&project.disk())? != suspended.disk {
        return Ok(Some("its disk was written to meanwhile".to_owned()));
    }
    if suspended.from.is_none() && settings::differ(project, spec, record)? {
        return Ok(Some("it is set otherwise now".to_owned()));
    }
    let path = suspended.path(project);
    Ok(match fs::metadata(&path) {
        Err(_) => Some(format!("{} is gone", path.display())),
        Ok(it) if it.len() != memory.length => {
            Some(format!("{} has another length", path.display()))
        }
        Ok(_) => None,
    })
}

async fn load(
    project: &Project,
    host: &Host,
    process: &Process,
    path: &Path,
    memory: &fs::File,
) -> Result<(), Obstacle> {
    let mut monitor = Monitor::connect(&project.monitor_socket()).await?;
    let layout = Layout::of(host.version);
    let refused =
        |words: &str| Obstacle::Unusable(format!("QEMU does not take the memory: {words}"));
    match migration::load(&mut monitor, layout, path, memory).await {
        Ok(()) => Ok(()),
        Err(MigrationError::Failed(words)) => Err(refused(&words)),
        Err(MigrationError::Monitor(error)) => {
            // A QEMU that does not like what it reads says so and ends; one that was killed says nothing.
            let ended = process.ended_within(ENDING).await;
            match said(&project.qemu_log()) {
                Some(words) if ended => Err(refused(&words)),
                _ if ended => Err(MachineError::Died {
                    during: "its memory".to_owned(),
                }
                .into()),
                _ => Err(error.into()),
            }
        }
    }
}
