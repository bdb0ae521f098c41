//! Templates: what [`prepare`] does, at a later moment. The node is Ready, and the guest is somebody, of whom all copies are.

use qapi::qmp;
use serde_json::json;

use super::{
    Machine, MachineError, Spec, Timings,
    host::{self, Host},
    kubeconfig, make, prepare, settings, suspend,
    timings::Whose,
};
use crate::{
    base::Digest,
    image::{self, Prepared, prepared},
    project::{Identity, Record},
    qemu::{Accelerator, Monitor, Process, version},
};

/// By what a template is found. It is of use to those alone who can go on from its memory, and who have asked for the same.
///
/// # Errors
///
/// When the host does not tell what it has.
pub(super) async fn key(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    of_disk: &Digest,
) -> Result<Digest, MachineError> {
    let accelerator = host.accelerator(spec.accel).await?;
    let runs = match accelerator {
        Accelerator::Kvm => "-enable-kvm".to_owned(),
        Accelerator::Tcg => String::new(),
    };
    let cpu = format!(
        "-cpu {}",
        accelerator.cpu(host.version, spec.cpu_model.as_deref())
    );
    // Who it will be is not known yet.
    let anybody = "anybody".parse().expect("it is a name");
    let shaped = json!([
        of_disk,
        machine.given_name,
        spec.cpus,
        spec.memory,
        spec.disk,
        Digest::of(&settings::archive(&machine.project, spec, &anybody)?),
        version::full(&host.qemu)?,
        host::processor(&[runs.clone(), cpu.clone()]),
        runs,
        cpu,
    ]);
    Ok(Digest::of(shaped.to_string().as_bytes()))
}

/// Makes a new machine a copy of the template on whose disk it stands. It is no machine before all of it is there.
///
/// # Errors
///
/// When something of it cannot be written.
pub(super) async fn copy(
    machine: &Machine,
    host: &Host,
    spec: &Spec,
    template: &Identity,
    record: Record,
    disk: &[u8],
) -> Result<Record, MachineError> {
    let project = &machine.project;
    let mut record = Record {
        name: template.name.clone(),
        uuid: template.uuid.clone(),
        ..record
    };
    tracing::info!("{} is a copy of a template", record.name);
    kubeconfig::check_place(project, &spec.kubeconfig, &record.name)?;
    record.save(project)?;
    settings::lay(project, spec, &record)?;
    make::ensure_disk(project, disk)?;
    template.give_keys(project)?;
    record.provisioned = true;
    prepare::begin_suspended(project, host, spec, &record).await?;
    record.save(project)?;
    Ok(record)
}

/// Keeps a machine whose node is Ready as a template, if it was begun as one: what it writes from now on goes to its own
/// overlay. That it cannot be kept is no reason to fail.
pub(super) async fn keep(
    machine: &Machine,
    record: &Record,
    process: &Process,
    timings: &mut Timings,
) {
    let project = &machine.project;
    let path = &record.image.path;
    if !prepared::is_template(path)
        || prepared::look(path) != Some(Prepared::Private)
        || !image::is_fresh(&project.disk(), record.disk)
    {
        return;
    }
    tracing::info!(
        "keeping {} as a template, for other projects that ask for one",
        record.name
    );
    suspend::sync(project).await;
    let kept = async {
        let mut monitor = Monitor::connect(&project.monitor_socket()).await?;
        machine.mark_suspending();
        monitor.execute(qmp::stop {}).await?;
        let taken = prepare::put_overlay(project, record, &mut monitor, process).await;
        monitor.execute(qmp::cont {}).await?;
        machine.mark_arrived();
        if let Some(identity) = Identity::of(project, record)? {
            prepare::publish(record, taken?, Some(identity)).await;
        }
        Ok::<_, MachineError>(())
    };
    if let Err(error) = kept.await {
        tracing::warn!(%error, "{} is no template", record.name);
        machine.abandon().await;
    }
    timings.end_of("the machine is kept as a template", Whose::Own);
}
