//! `setup` and `start`: from any state to a node that is Ready.

use std::time::{Duration, Instant};

use crate::{
    base::{
        Progress,
        files::{self, PRIVATE, remove_if_exists},
    },
    machine::{
        Limits, Machine, MachineError, Spec, State, Timings,
        access::{api, kubeconfig, ports},
        cache::references,
        control::{guest, guest_logs, vcpu, wake},
        guest_config::{cidata, mount_check},
        launch::{Launched, Startup, disk_files, disk_state},
        lifecycle::{
            boot,
            boot_checks::Failure,
            boot_progress::{self, BootProgress},
            create, idle, preflight, readiness, reset,
        },
        memory::resume,
        model::{
            host::{self, Host},
            timings::TimeSpentIn,
        },
        recover::{interrupted, running::RunningSettings},
        template::{backing, publish, ready},
    },
    project::{Config, Project, Record, Suspended, approval, user},
    qemu::{Accelerator, Process, ProcessError},
};

/// The result of a command that starts the VM.
#[derive(Debug)]
pub struct Summary {
    /// The VM.
    pub record: Record,
    /// Where the time went.
    pub timings: Timings,
    /// The VM was running and ready already.
    pub nothing_to_do: bool,
}

/// How long a busy guest has until the next query.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Creates, boots and provisions the VM, or continues an interrupted setup.
///
/// # Errors
///
/// The first step that fails; what is done is kept, and the next setup continues from there.
pub async fn setup(
    machine: &Machine,
    flags: Config,
    progress: &dyn Progress,
) -> Result<Summary, MachineError> {
    let result = set_up(machine, flags, progress).await;
    if result.is_err() {
        reset::remove_traces(machine);
    }
    result
}

async fn set_up(
    machine: &Machine,
    flags: Config,
    progress: &dyn Progress,
) -> Result<Summary, MachineError> {
    let mut timings = Timings::start();
    let ports = flags.ports.clone().unwrap_or_default();
    // Recovery may have changed the config.
    let state = interrupted::recover(machine).await?;
    let config = flags.over(approval::load(&machine.project)?);
    let all = config.clone().over(user::config(state.record().is_some())?);
    let spec = Spec::resolve(&all, state.record(), &machine.project)?;
    let config = spec.completed(config);
    let host = Host::detect(&machine.cache)?;
    let stopped = match discard_if_never_booted(machine, &spec, state)? {
        State::Absent => None,
        State::Stopped(record) => Some(record),
        State::Running(record, process) => {
            preflight::require_choices(machine, &spec, &record.name)?;
            ports::require(&machine.project, &ports).await?;
            approval::save(&machine.project, &config)?;
            return attach_to_running(machine, &spec, record, process, timings).await;
        }
    };
    let startup = Startup {
        machine,
        host: &host,
        spec: &spec,
        began: Instant::now(),
    };
    host.accelerator(spec.accel).await?;
    timings.lap("examine the host", TimeSpentIn::Own);
    ports::require(&machine.project, &ports).await?;
    let name = stopped.as_ref().map(|record| record.name.clone());
    preflight::require(startup, &name.unwrap_or_else(|| machine.new_name()))?;
    let record = match stopped {
        Some(record) if record.provisioned => record,
        unfinished => {
            if unfinished.is_none() {
                host::warn_of_root();
            }
            create::create_machine(startup, unfinished, progress, &mut timings).await?
        }
    };
    boot_with_config(startup, record, &config, timings).await
}

/// Discards a VM that contradicts the choices, if it has never booted.
fn discard_if_never_booted(
    machine: &Machine,
    spec: &Spec,
    state: State,
) -> Result<State, MachineError> {
    let Some(record) = state.record() else {
        return Ok(state);
    };
    let Err(contradiction) = spec.agrees_with(record) else {
        return Ok(state);
    };
    let running = matches!(state, State::Running(..));
    if running || !disk_state::is_untouched(machine, record) {
        return Err(contradiction);
    }
    tracing::info!("{} has never booted; recreating it", record.name);
    remove_if_exists(&machine.project.disk())?;
    backing::discard(machine, record)?;
    Ok(State::Absent)
}

/// Saves the project's config and starts the VM. A config that QEMU refuses is not kept, since every later start would
/// be refused as well.
async fn boot_with_config(
    startup: Startup<'_>,
    record: Record,
    config: &Config,
    timings: Timings,
) -> Result<Summary, MachineError> {
    let project = startup.project();
    let path = project.config();
    let former = files::read_if_exists(&path)?;
    approval::save(project, config)?;
    let result = boot_or_resume(startup, record, timings).await;
    if let Err(MachineError::Process(ProcessError::Ended { .. } | ProcessError::Wrapper { .. })) =
        result
    {
        match former {
            Some(text) => files::write(&path, text.as_bytes(), PRIVATE)?,
            None => remove_if_exists(&path)?,
        }
    }
    result
}

/// Starts the existing VM.
///
/// # Errors
///
/// [`MachineError::Absent`] when there is no VM; else those of [`setup`].
pub async fn start(
    machine: &Machine,
    flags: Config,
    restore_datastore: bool,
) -> Result<Summary, MachineError> {
    let timings = Timings::start();
    let state = interrupted::recover(machine).await?;
    let kept = Config {
        idle_suspend: flags.idle_suspend,
        ..Config::default()
    };
    let config = flags.over(user::trusted(&machine.project)?);
    if kept.idle_suspend.is_some() && state.record().is_some() {
        approval::save(&machine.project, &kept)?;
    }
    let spec = Spec {
        restore_datastore,
        ..Spec::resolve(&config, state.record(), &machine.project)?
    };
    match state {
        State::Absent => Err(MachineError::absent(&machine.project)),
        State::Running(..) if restore_datastore => Err(MachineError::Running),
        State::Running(record, process) => {
            spec.agrees_with(&record)?;
            attach_to_running(machine, &spec, record, process, timings).await
        }
        State::Stopped(record) => {
            spec.agrees_with(&record)?;
            let startup = Startup {
                machine,
                host: &Host::detect(&machine.cache)?,
                spec: &spec,
                began: Instant::now(),
            };
            preflight::require(startup, &record.name)?;
            boot_or_resume(startup, record, timings).await
        }
    }
}

/// Brings a stopped VM to a ready node.
async fn boot_or_resume(
    startup: Startup<'_>,
    mut record: Record,
    mut timings: Timings,
) -> Result<Summary, MachineError> {
    // Earlier downloads do not count.
    let startup = Startup {
        began: Instant::now(),
        ..startup
    };
    let Startup { machine, spec, .. } = startup;
    let project = startup.project();
    disk_state::require(project, &record)?;
    record.api_port = host::api_port(
        spec.api_port,
        (record.api_port != 0).then_some(record.api_port),
    )?;
    record.ssh_port = None;
    references::register(machine, Some(&record)).await?;
    kubeconfig::announce(project, &record)?;
    if let Ok(program) = std::env::current_exe() {
        disk_files::ensure_links(project, &program)?;
    }
    timings.lap("check files and ports", TimeSpentIn::Own);
    let work = async {
        let launched = match resumed(startup, &record, &mut timings).await? {
            Some(launched) => launched,
            None => boot::boot(startup, &record, &mut timings).await?,
        };
        finish_startup(machine, spec, launched, timings).await
    };
    guest_logs::capped(project, work).await
}

/// Resumes the VM from saved memory or from a template; `None` when it has to boot.
async fn resumed(
    startup: Startup<'_>,
    record: &Record,
    timings: &mut Timings,
) -> Result<Option<Launched>, MachineError> {
    let Some(launched) = resume::restore(startup, record, timings).await? else {
        return Ok(None);
    };
    if record.provisioned {
        return Ok(Some(launched));
    }
    let project = startup.project();
    let mut progress = BootProgress::of_template(project, &launched);
    match progress.until_k3s(&launched.record, timings).await {
        Ok(()) => Ok(Some(launched)),
        Err(Failure::IdentityNotReceived(error) | Failure::EmulatorCrash(error)) => {
            boot::end_without_identity(startup.machine, &error).await;
            Suspended::discard(project)?;
            Ok(None)
        }
        Err(failure) => Err(failure.into_error()),
    }
}

/// Finishes the start of a running VM, unless it is ready.
async fn attach_to_running(
    machine: &Machine,
    spec: &Spec,
    mut record: Record,
    process: Process,
    timings: Timings,
) -> Result<Summary, MachineError> {
    let project = &machine.project;
    if !record.provisioned {
        // Left by an interrupted setup: this command finishes it, or ends QEMU.
        machine.adopt_qemu();
    }
    let paused = vcpu::unpause(project).await?;
    let running = RunningSettings::query(machine).await.ok();
    let accelerator = running
        .as_ref()
        .map_or(Accelerator::Tcg, |it| it.accelerator);
    let limits = Limits::for_start(accelerator, spec.timeout);
    if paused && record.provisioned {
        wake::wake(project, limits.left()).await;
    }
    if let Some(running) = running {
        for choice in running.pending(project, spec, &record)? {
            tracing::info!("{choice}: from the next start on (k3s-vm restart)");
        }
    }
    if record.provisioned && has_ready_node(&record, limits).await {
        kubeconfig::move_to(project, &mut record, &spec.kubeconfig)?;
        open_to_the_user(project, spec, &record).await?;
        return Ok(Summary {
            record,
            timings,
            nothing_to_do: !paused,
        });
    }
    let launched = Launched {
        record,
        process,
        accelerator,
        limits,
        captured: None,
    };
    let work = wait_until_ready(machine, spec, launched, timings);
    guest_logs::in_files(project, work).await
}

/// Waits for a VM whose earlier start was interrupted.
async fn wait_until_ready(
    machine: &Machine,
    spec: &Spec,
    launched: Launched,
    mut timings: Timings,
) -> Result<Summary, MachineError> {
    let project = &machine.project;
    let (record, limits) = (&launched.record, launched.limits);
    tracing::info!(
        "{} is already running (process {}); waiting until it is ready",
        record.name,
        launched.process.pid()
    );
    if !(record.provisioned && wake::start_k3s(project, limits).await) {
        let mut progress = BootProgress::of(project, &launched.process, limits);
        if record.provisioned {
            progress.skip_reports()?;
        }
        tokio::select! {
            started = progress.until_k3s(record, &mut timings) => started.map_err(Failure::into_error)?,
            () = answered(project, limits), if record.provisioned => {}
        }
    }
    finish_startup(machine, spec, launched, timings).await
}

/// Waits until a guest that did not answer at first reports that k3s runs: it does not send that report again.
async fn answered(project: &Project, limits: Limits) {
    loop {
        tokio::time::sleep(RETRY_INTERVAL).await;
        if wake::start_k3s(project, limits).await {
            return;
        }
    }
}

/// Returns `true` when the API answers in time, and its node is Ready.
async fn has_ready_node(record: &Record, limits: Limits) -> bool {
    let Ok(api) = api::client_of(record) else {
        return false;
    };
    let is_ready = async {
        let nodes = api.nodes().await;
        api.ready().await.is_ok() && nodes.is_ok_and(|nodes| nodes.iter().any(|node| node.ready))
    };
    tokio::time::timeout(limits.left(), is_ready)
        .await
        .unwrap_or(false)
}

/// Waits for the cluster once k3s has started.
async fn finish_startup(
    machine: &Machine,
    spec: &Spec,
    launched: Launched,
    mut timings: Timings,
) -> Result<Summary, MachineError> {
    let Launched {
        mut record,
        process,
        limits,
        captured,
        ..
    } = launched;
    let project = &machine.project;
    let former = std::mem::replace(&mut record.kubeconfig, spec.kubeconfig.clone());
    let ready = readiness::ready(project, &record, &process, limits, &mut timings);
    boot_progress::unless_boot_fails(project, &process, limits, ready).await?;
    if former != record.kubeconfig {
        kubeconfig::remove(project, &former, &record.name)?;
    }
    if !record.provisioned {
        // A guest that loses its identity finds it there from now on.
        cidata::ensure_seed(project, &record, false)?;
    }
    record.provisioned = true;
    record.ssh_port = guest::host_port(project, 22).await.ok();
    record.save(project)?;
    machine.keep_qemu();
    if let Some(captured) = captured {
        publish::publish(&record, captured, None).await;
        timings.lap("publish disk and memory", TimeSpentIn::Own);
    }
    ready::publish_ready(machine, &record, &process, &mut timings).await;
    open_to_the_user(project, spec, &record).await?;
    Ok(Summary {
        record,
        timings,
        nothing_to_do: false,
    })
}

/// The steps once the node is Ready: ports, logs, the idle watch, and the check of the mounts.
async fn open_to_the_user(
    project: &Project,
    spec: &Spec,
    record: &Record,
) -> Result<(), MachineError> {
    ports::open(project, spec).await;
    guest_logs::to_memory(project).await;
    idle::start_watch(project, spec);
    mount_check::require(project, spec, record).await
}
