//! Templates at the level `Ready`: the node is Ready, and the guest has an identity that all copies share.

use qapi::qmp;

use crate::{
    image::{
        self, TemplateState,
        template::{self, Level},
    },
    machine::{
        Machine, MachineError, Timings,
        access::kubeconfig,
        control::guest,
        guest_config::config_archive,
        launch::{Startup, disk_files},
        model::timings::TimeSpentIn,
        template::{capture, publish},
    },
    project::{Identity, Record},
    qemu::{Process, monitor_of},
};

/// Makes a new VM a copy of the template below its disk.
///
/// # Errors
///
/// When something of it cannot be written.
pub(crate) async fn clone_template(
    startup: Startup<'_>,
    template: &Identity,
    record: Record,
    disk: &[u8],
) -> Result<Record, MachineError> {
    let project = startup.project();
    let spec = startup.spec;
    let mut record = Record {
        name: template.name.clone(),
        uuid: template.uuid.clone(),
        ..record
    };
    tracing::info!("{} is a clone of a template", record.name);
    kubeconfig::check_place(project, &spec.kubeconfig, &record.name)?;
    record.save(project)?;
    config_archive::write_config_archive(project, spec, &record)?;
    disk_files::ensure_disk(project, disk)?;
    template.give_keys(project)?;
    record.provisioned = true;
    publish::prepare_resume(startup, &record).await?;
    record.save(project)?;
    Ok(record)
}

/// Keeps a VM whose node is Ready as a template, if it was created as one: later writes go to its own overlay. A
/// failure is only logged.
pub(crate) async fn publish_ready(
    machine: &Machine,
    record: &Record,
    process: &Process,
    timings: &mut Timings,
) {
    let project = &machine.project;
    let path = &record.image.path;
    if template::level(path) == Level::Installed
        || template::state(path) != Some(TemplateState::Private)
        || !image::is_fresh(&project.disk(), record.disk)
    {
        return;
    }
    tracing::info!("publishing {} as a template for clones", record.name);
    guest::sync(project).await;
    let kept = async {
        let mut monitor = monitor_of(project).await?;
        machine.mark_paused();
        monitor.execute(qmp::stop {}).await?;
        let taken = capture::pivot_to_overlay(project, record, &mut monitor, process).await;
        monitor.execute(qmp::cont {}).await?;
        machine.keep_qemu();
        if let Some(identity) = Identity::of(project, record)? {
            publish::publish(record, taken?, Some(identity)).await;
        }
        Ok::<_, MachineError>(())
    };
    if let Err(error) = kept.await {
        tracing::warn!(%error, "cannot publish {} as a template", record.name);
        machine.cleanup_on_failure().await;
    }
    timings.lap("publish the template", TimeSpentIn::Own);
}
