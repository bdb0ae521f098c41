//! The other half of `stop --suspend`: a start that goes on where the guest was.
//!
//! What has changed meanwhile so that the memory is of no use any more is told in a word, and the machine boots. What only
//! keeps it from starting now (a port, memory of the host, a KVM that does not work) is an error, and nothing is lost.

use std::fs;

use tokio::task::spawn_blocking;

use super::{
    Limits, Machine, MachineError, Spec, Timings, boot,
    host::{self, Host},
    make, resume,
    suspend::ENDING,
    timings::Whose,
};
use crate::{
    base::{FileError, files, sparse},
    project::{Project, Record, Suspended, config::AccelChoice, suspended::Stamp},
    qemu::{
        Accelerator, Layout, MigrationError, Monitor, Process, migration, process::said, version,
        visible,
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
    let launch = boot::plan(project, host, spec, record, accelerator, Some(suspended))?;
    let arguments = launch.arguments().into_iter();
    let now = visible::visible(arguments.filter_map(|it| it.into_string().ok()));
    let gone = launch.attachments.iter().find(|it| !it.file.exists());
    let hindrance = match gone {
        Some(disk) => Some(format!("{} is gone", disk.file.display())),
        None => difference(project, host, suspended, &now, accelerator)?,
    };
    if let Some(reason) = hindrance {
        return Err(Obstacle::Unusable(reason));
    }
    let limits = Limits::for_start(accelerator, spec.timeout);
    make::prepare_runtime(project)?;
    machine.mark_launched();
    tracing::info!("resuming {}", record.name);
    // Opened twice, for each reads it from its beginning; and here while QEMU starts, which then finds it read.
    let path = project.memory();
    let memory = files::open_in_place(&path, false)?;
    let checksum = files::open_in_place(&path, false)?;
    let checksum = spawn_blocking(move || sparse::checksum(&checksum));
    let process = boot::launch(machine, host, spec, record, accelerator, Some(suspended)).await?;
    timings.end_of("start QEMU", Whose::Own);
    let checksum = checksum.await.expect("neither panics nor is cancelled");
    if checksum.map_err(FileError::on("read", &path))? != suspended.checksum {
        let reason = format!("{} is damaged", path.display());
        return Err(Obstacle::Unusable(reason));
    }
    timings.end_of("memory is verified", Whose::Own);
    load(project, host, &process, &memory).await?;
    timings.end_of("memory is loaded", Whose::Own);
    // From here on the guest lives in this QEMU alone, which stays whatever comes.
    machine.mark_arrived();
    resume::release(project).await?;
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
    let by_kvm = suspended.arguments.iter().any(|it| it == "-enable-kvm");
    if by_kvm && accelerator == Accelerator::Tcg && spec.accel == AccelChoice::Auto {
        return Err(MachineError::SuspendedByKvm(host.kvm().await.clone()));
    }
    Ok(accelerator)
}

/// What is not as it was, in words; the cheap half of it.
fn difference(
    project: &Project,
    host: &Host,
    suspended: &Suspended,
    now: &[String],
    accelerator: Accelerator,
) -> Result<Option<String>, MachineError> {
    let qemu = version::full(&host.qemu)?;
    if qemu != suspended.qemu {
        let then = &suspended.qemu;
        return Ok(Some(format!("QEMU was {then} and is {qemu}")));
    }
    if let Some(difference) = visible::difference(&suspended.arguments, now) {
        return Ok(Some(format!("it was started otherwise: {difference}")));
    }
    if host::processor(accelerator) != suspended.processor {
        return Ok(Some("this host's processor is another one".to_owned()));
    }
    if Stamp::of(&project.disk())? != suspended.disk {
        return Ok(Some("its disk was written to meanwhile".to_owned()));
    }
    let memory = project.memory();
    Ok(match fs::metadata(&memory) {
        Err(_) => Some(format!("{} is gone", memory.display())),
        Ok(it) if it.len() != suspended.length => {
            Some(format!("{} has another length", memory.display()))
        }
        Ok(_) => None,
    })
}

async fn load(
    project: &Project,
    host: &Host,
    process: &Process,
    memory: &fs::File,
) -> Result<(), Obstacle> {
    let mut monitor = Monitor::connect(&project.monitor_socket()).await?;
    let layout = Layout::of(host.version);
    let refused =
        |words: &str| Obstacle::Unusable(format!("QEMU does not take the memory: {words}"));
    match migration::load(&mut monitor, layout, &project.memory(), memory).await {
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
