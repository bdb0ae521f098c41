//! `setup` and `start`: from whatever is there to a node that is Ready.

use std::time::Duration;

use crate::{
    base::{
        Progress,
        files::{self, PRIVATE, remove_if_exists},
    },
    machine::{
        Limits, Machine, MachineError, Spec, State, Timings,
        access::{api, kubeconfig, ports},
        cache::references,
        control::{guest_logs, vcpu, wake},
        guest_config::{cidata, mount_check},
        launch::{Startup, disk_files, disk_state},
        lifecycle::{
            boot,
            boot_progress::{self, Failure},
            create, idle, preflight, readiness,
        },
        memory::resume,
        model::{
            host::{self, Host},
            timings::TimeSpentIn,
        },
        recover::{interrupted, running::Running},
        template::{backing, publish, ready},
    },
    project::{Config, Project, Record, Suspended, approval, user},
    qemu::{Accelerator, Process, ProcessError},
};

/// What a command that brings the VM up has to tell.
#[derive(Debug)]
pub struct Summary {
    /// The VM.
    pub record: Record,
    /// Where the time went.
    pub timings: Timings,
    /// The VM was running and ready already.
    pub nothing_to_do: bool,
}

/// How long a busy guest has until it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A QEMU whose guest has started k3s, and the time that is left.
type Launched = (Process, Limits);

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
    let mut timings = Timings::start();
    let asked = flags.clone();
    // What a command that died has left may be another config.
    let mut state = interrupted::recover(machine).await?;
    let config = flags.over(approval::load(&machine.project)?);
    let all = config.clone().over(user::config(state.record().is_some())?);
    let spec = Spec::resolve(&all, state.record(), &machine.project)?;
    let config = spec.completed(config);
    let host = Host::look(&machine.cache)?;
    if let Some(record) = state.record()
        && let Err(contradiction) = spec.agrees_with(record)
    {
        let running = matches!(state, State::Running(..));
        if running || !disk_state::is_untouched(machine, record) {
            return Err(contradiction);
        }
        tracing::info!("{} has never booted; recreating it", record.name);
        remove_if_exists(&machine.project.disk())?;
        backing::discard(machine, record)?;
        state = State::Absent;
    }
    if let State::Running(record, process) = state {
        preflight::require_choices(machine, &spec, &record.name)?;
        ports::require(&machine.project, &asked).await?;
        approval::save(&machine.project, &config)?;
        return attach_to_running(machine, &spec, record, process, timings).await;
    }
    let startup = Startup {
        machine,
        host: &host,
        spec: &spec,
    };
    host.accelerator(spec.accel).await?;
    timings.lap("look at the host", TimeSpentIn::Own);
    ports::require(&machine.project, &asked).await?;
    let name = state.record().map(|record| record.name.clone());
    preflight::require(startup, &name.unwrap_or_else(|| machine.new_name()))?;
    let record = match state {
        State::Stopped(record) if record.provisioned => record,
        State::Stopped(record) => {
            create::create_machine(startup, Some(record), progress, &mut timings).await?
        }
        _ => {
            host::warn_of_root();
            create::create_machine(startup, None, progress, &mut timings).await?
        }
    };
    let path = machine.project.config();
    let former = files::read_if_exists(&path)?;
    approval::save(&machine.project, &config)?;
    let result = boot_or_resume(startup, record, timings).await;
    if let Err(MachineError::Process(ProcessError::Ended { .. })) = result {
        // What QEMU itself refuses would be refused at each start from now on.
        match former {
            Some(text) => files::write(&path, text.as_bytes(), PRIVATE)?,
            None => remove_if_exists(&path)?,
        }
    }
    result
}

/// Boots the VM that is there.
///
/// # Errors
///
/// [`MachineError::Absent`] when there is none; else those of [`setup`].
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
                host: &Host::look(&machine.cache)?,
                spec: &spec,
            };
            preflight::require(startup, &record.name)?;
            boot_or_resume(startup, record, timings).await
        }
    }
}

/// From a stopped VM to a ready node.
async fn boot_or_resume(
    startup: Startup<'_>,
    mut record: Record,
    mut timings: Timings,
) -> Result<Summary, MachineError> {
    let Startup { machine, spec, .. } = startup;
    let project = startup.project();
    disk_state::require(project, &record)?;
    record.api_port = host::api_port(
        spec.api_port,
        (record.api_port != 0).then_some(record.api_port),
    )?;
    references::register(machine, Some(&record))?;
    kubeconfig::announce(project, &record)?;
    if let Ok(program) = std::env::current_exe() {
        disk_files::ensure_links(project, &program)?;
    }
    timings.lap("look at files and ports", TimeSpentIn::Own);
    let work = async {
        let launched = match resumed(startup, &mut record, &mut timings).await? {
            Some(launched) => launched,
            None => boot::boot(startup, &mut record, &mut timings).await?,
        };
        finish_startup(machine, spec, record, launched, timings).await
    };
    guest_logs::capped(project, work).await
}

/// A VM that was resumed from saved memory or from a template; `None` when it has to boot.
async fn resumed(
    startup: Startup<'_>,
    record: &mut Record,
    timings: &mut Timings,
) -> Result<Option<Launched>, MachineError> {
    let Some((process, limits)) = resume::restore(startup, record, timings).await? else {
        return Ok(None);
    };
    if record.provisioned {
        return Ok(Some((process, limits)));
    }
    let project = startup.project();
    match boot_progress::watch_identified(project, &process, limits, timings).await {
        Ok(()) => Ok(Some((process, limits))),
        Err(Failure::IdentityNotReceived(error)) => {
            boot::restart_plainly(startup.machine, &error).await;
            Suspended::discard(project)?;
            Ok(None)
        }
        Err(failure) => Err(failure.into_error()),
    }
}

/// A VM that runs already: an earlier command died on the way, or all is well.
async fn attach_to_running(
    machine: &Machine,
    spec: &Spec,
    mut record: Record,
    process: Process,
    timings: Timings,
) -> Result<Summary, MachineError> {
    let project = &machine.project;
    if !record.provisioned {
        // Left behind by a setup that died: it is ours to finish or to end.
        machine.adopt_qemu();
    }
    let paused = vcpu::unpause(project).await?;
    let running = Running::look(machine).await.ok();
    let accelerator = running
        .as_ref()
        .map_or(Accelerator::Tcg, |running| running.accelerator);
    let limits = Limits::for_start(accelerator, spec.timeout);
    if paused && record.provisioned {
        wake::wake(project, limits.left()).await;
    }
    if let Some(running) = &running {
        for choice in running.pending(project, spec, &record)? {
            tracing::info!("{choice}: from the next start on (k3s-vm restart)");
        }
    }
    if record.provisioned && has_ready_node(&record, limits).await {
        if record.kubeconfig != spec.kubeconfig {
            kubeconfig::move_to(&machine.project, &mut record, &spec.kubeconfig)?;
        }
        open_to_the_user(project, spec, &record).await?;
        return Ok(Summary {
            record,
            timings,
            nothing_to_do: !paused,
        });
    }
    let work = wait_until_ready(machine, spec, record, (process, limits), timings);
    guest_logs::to_files(project).await;
    let result = guest_logs::capped(project, work).await;
    guest_logs::to_memory(project).await;
    result
}

/// Waits for a VM that an earlier command started and did not see to its end.
async fn wait_until_ready(
    machine: &Machine,
    spec: &Spec,
    record: Record,
    launched: Launched,
    mut timings: Timings,
) -> Result<Summary, MachineError> {
    let project = &machine.project;
    let (process, limits) = &launched;
    tracing::info!(
        "{} is already running (process {}); waiting until it is ready",
        record.name,
        process.pid()
    );
    let again = record.provisioned;
    if !(again && wake::start_k3s(project, *limits).await) {
        let asked = Some(&record);
        let reported =
            boot_progress::wait_for_k3s(project, asked, process, *limits, &mut timings, again);
        tokio::select! {
            reported = reported => reported?,
            () = answered(project, *limits), if again => {}
        }
    }
    finish_startup(machine, spec, record, launched, timings).await
}

/// Waits until a guest that did not answer at first says that its k3s runs: it has reported that before, and does not
/// report it again.
async fn answered(project: &Project, limits: Limits) {
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        if wake::start_k3s(project, limits).await {
            return;
        }
    }
}

/// Whether the API answers in time, and has a node that is Ready.
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

/// k3s has started: the rest is the cluster's.
async fn finish_startup(
    machine: &Machine,
    spec: &Spec,
    mut record: Record,
    (process, limits): Launched,
    mut timings: Timings,
) -> Result<Summary, MachineError> {
    let project = &machine.project;
    let former = std::mem::replace(&mut record.kubeconfig, spec.kubeconfig.clone());
    let ready = readiness::ready(project, &record, &process, limits, &mut timings);
    boot_progress::unless_boot_fails(project, &process, limits, ready).await?;
    if former != record.kubeconfig {
        kubeconfig::remove(project, &former, &record.name)?;
    }
    if !record.provisioned {
        // From now on the guest finds there who it is, should it forget.
        cidata::ensure_seed(project, &record, false)?;
    }
    record.provisioned = true;
    record.save(project)?;
    machine.keep_qemu();
    if let Some(taken) = machine.take_captured() {
        publish::publish(&record, taken, None).await;
        timings.lap("disk and memory are kept for others", TimeSpentIn::Own);
    }
    ready::publish_ready(machine, &record, &process, &mut timings).await;
    open_to_the_user(project, spec, &record).await?;
    Ok(Summary {
        record,
        timings,
        nothing_to_do: false,
    })
}

/// What follows once the node is Ready: ports, logs, the idle watch, and whether the mounts are there.
async fn open_to_the_user(
    project: &Project,
    spec: &Spec,
    record: &Record,
) -> Result<(), MachineError> {
    ports::open(project, spec).await;
    guest_logs::to_memory(project).await;
    idle::begin(project, spec);
    mount_check::require(project, spec, record).await
}
