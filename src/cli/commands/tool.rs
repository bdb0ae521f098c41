//! `kubectl` and `k9s`: the real tools, with the machine's kubeconfig.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use crate::{
    cli::{
        context::Context,
        error::{CommandError, code},
        hints,
    },
    k3s::tools::{Tool, exec},
    machine::{MachineError, State, access::kubeconfig, control::vcpu::is_paused},
};

const PATIENCE: Duration = Duration::from_millis(500);

pub(crate) const KUBECTL_HELP: &str = "Examples:\n  \
    k3s-vm kubectl get nodes\n  \
    k3s-vm kubectl apply -f app.yaml\n  \
    .k3s-vm/bin/kubectl get pods -A   # the same, for tools that want a program called kubectl\n\n\
    When it fails:\n  \
    All words behind `kubectl` are kubectl's own, and so is the exit code. `k3s-vm status` tells whether\n  \
    the cluster is well. Without a kubectl on the host, the cached k3s is used, which is one.";

pub(crate) const K9S_HELP: &str = "Examples:\n  \
    k3s-vm k9s\n  \
    k3s-vm k9s -n kube-system\n\n\
    When it fails:\n  \
    All words behind `k9s` are k9s's own. `k3s-vm status` tells whether the cluster is well.";

/// What is passed on to the tool.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Passed on as they are
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    arguments: Vec<OsString>,
}

/// Becomes the tool; comes back only with an error.
pub(crate) async fn run(
    tool: Tool,
    args: &Args,
    context: &Context,
) -> Result<ExitCode, CommandError> {
    let record = match State::observe(&context.project)? {
        State::Absent => return Err(MachineError::absent(&context.project).into()),
        State::Stopped(record) => {
            return Err(MachineError::not_running(&context.project, record.name).into());
        }
        State::Running(record, _) => record,
    };
    kubeconfig::of(&record)?;
    // The tool would wait for an answer until its own time is over. QEMU tells at once, if nobody else talks to it.
    let paused = tokio::time::timeout(PATIENCE, is_paused(&context.project)).await;
    if paused.is_ok_and(|it| it.is_ok_and(|paused| paused)) {
        return Err(MachineError::Paused.into());
    }
    let this = std::env::current_exe().unwrap_or_default();
    match tool.command(
        &this,
        &record.release.binary,
        &context.cache.join("k3s-data"),
    ) {
        Some(command) => {
            let error = exec(command, &args.arguments, &record.kubeconfig);
            Err(CommandError::new(format!("cannot run {}", tool.name())).because(&error))
        }
        None => {
            let fix = if tool == Tool::K9s {
                &hints::INSTALL_K9S
            } else {
                &hints::INSTALL_KUBECTL
            };
            let error = CommandError::new(format!("there is no {} on the PATH", tool.name()))
                .with_code(code::NOT_FOUND);
            Err(hints::for_this_host(fix)
                .into_iter()
                .fold(error, CommandError::hint))
        }
    }
}
