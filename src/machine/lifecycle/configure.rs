//! `configure`: changes the config of an existing VM, from its next start.

use crate::{
    base::files::{self, PRIVATE},
    machine::{
        Machine, MachineError, Spec, State,
        guest_config::config_archive,
        lifecycle::preflight,
        recover::{interrupted, running::RunningSettings},
    },
    project::{Config, Suspended, approval, user},
};

/// Saves the choices, and removes the `forgotten` keys. Returns the changes that need a restart.
///
/// # Errors
///
/// When a choice is invalid, or is fixed when the VM is created: nothing is saved then.
pub async fn configure(
    machine: &Machine,
    flags: Config,
    forgotten: &[String],
) -> Result<Vec<String>, MachineError> {
    let project = &machine.project;
    let state = interrupted::recover(machine).await?;
    let Some(record) = state.record() else {
        return Err(MachineError::absent(project));
    };
    if Suspended::holds(project, record) {
        // Its memory would be lost: a resumed guest cannot have another number of CPUs.
        return Err(MachineError::Suspended(record.name.clone()));
    }
    approval::load(project)?;
    let (config, text) = flags.changed(&project.config(), forgotten)?;
    let all = config.clone().over(user::config(true)?);
    let spec = Spec::resolve(&all, Some(record), project)?;
    spec.agrees_with(record)?;
    preflight::require_choices(machine, &spec, &record.name)?;
    if config_archive::current_config_archive(project)?.is_none()
        && record.provisioned
        && spec.has_settings()
    {
        let reason = format!(
            "{} was made by an older k3s-vm, and its guest takes no settings of k3s and network",
            record.name
        );
        return Err(MachineError::Choice(reason));
    }
    approval::approve(project, &config)?;
    files::write(&project.config(), text.as_bytes(), PRIVATE)?;
    match &state {
        State::Running(record, _) => match RunningSettings::query(machine).await {
            Ok(running) => running.pending(project, &spec, record),
            Err(error) => Err(error.into()),
        },
        State::Absent | State::Stopped(_) => Ok(Vec::new()),
    }
}
