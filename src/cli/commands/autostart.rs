//! `autostart`: starts the VM with the login session.

use std::process::ExitCode;

use clap::ValueEnum;

use crate::{
    cli::{context::Context, error::CommandError, terminal::output::Output},
    machine::{MachineError, State, lifecycle::autostart},
    project::Project,
};

/// The arguments of `autostart`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm autostart on\n  \
    k3s-vm autostart                # prints on or off\n  \
    k3s-vm autostart off\n  \
    loginctl enable-linger          # to run without a login\n\n\
    When it fails:\n  \
    systemd has the reason: journalctl --user -u 'k3s-vm-*'. After moving the project or k3s-vm, run \
    `k3s-vm autostart on` again.")]
pub struct Args {
    /// New state [default: print the current one]
    #[arg(value_enum)]
    switch: Option<Switch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(crate) fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let project = &context.project;
    match args.switch {
        Some(Switch::Off) => match autostart::off(project)? {
            true => tracing::info!("autostart is off"),
            false => tracing::info!("it is off already"),
        },
        Some(Switch::On) => enable(context)?,
        None => print_state(project, output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print_state(project: &Project, output: &Output) -> Result<(), CommandError> {
    if State::observe(project)?.record().is_none() {
        return Err(MachineError::absent(project).into());
    }
    let found = autostart::status(project)?;
    if let Some(unit) = &found.unit {
        tracing::info!("by {}", unit.display());
    }
    output.data(if found.unit.is_some() {
        "on\n"
    } else {
        "off\n"
    });
    Ok(())
}

fn enable(context: &Context) -> Result<(), CommandError> {
    let project = &context.project;
    let state = State::observe(project)?;
    let record = state
        .record()
        .ok_or_else(|| MachineError::absent(project))?;
    let program = std::env::current_exe().map_err(|error| {
        CommandError::new("cannot find the path of this program").because(&error)
    })?;
    let made = autostart::on(project, record, &context.cache, &program)?;
    let unit = made.unit.unwrap_or_default();
    tracing::info!("{} is written and enabled", unit.display());
    if made.lingers {
        tracing::info!("the VM starts with this host, because lingering is enabled for you");
    } else {
        tracing::info!(
            "the VM starts when you log in; to run it without a login: loginctl enable-linger"
        );
    }
    Ok(())
}
