//! `kubectl` and `k9s`: the real tools, with the VM's kubeconfig.

use std::{env, ffi::OsString, path::Path, process::ExitCode, time::Duration};

use crate::{
    base::trust,
    cli::{
        context::Context,
        error::{CommandError, code},
        hints,
    },
    k3s::tools::{Tool, exec},
    machine::{MachineError, State, access::kubeconfig, control::vcpu::is_paused},
    project::{Project, Record},
};

const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);

pub(crate) const KUBECTL_HELP: &str = "Examples:
  \
    k3s-vm kubectl get nodes
  \
    k3s-vm kubectl apply -f app.yaml
  \
    .k3s-vm/bin/kubectl get pods -A   # for tools that need a kubectl

\
    When it fails:
  \
    All arguments are passed to kubectl, and the exit code is kubectl's. `k3s-vm status` shows whether the cluster is \
    healthy. Without a kubectl on the host, the one in k3s is used.";

pub(crate) const K9S_HELP: &str = "Examples:
  \
    k3s-vm k9s
  \
    k3s-vm k9s -n kube-system";

/// The arguments of `kubectl` and `k9s`, which are passed on.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell found a link of the VM's on its PATH
    #[arg(long = ON_PATH, hide = true)]
    on_path: bool,
    /// Arguments of the tool
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    arguments: Vec<OsString>,
}

/// The flag of [`Args::on_path`].
pub(crate) const ON_PATH: &str = "k3s-vm-on-path";

/// The commands of kubectl that need no cluster.
const LOCAL: [&str; 6] = [
    "completion",
    "config",
    "help",
    "kustomize",
    "options",
    "plugin",
];

/// Returns `true` when the user names another cluster: in the arguments, or in a shell that k3s-vm has set up with a
/// KUBECONFIG that is not the VM's.
fn chooses_another(args: &Args, machines: &Path) -> bool {
    let flag = |it: &OsString| {
        it.to_str()
            .is_some_and(|it| it.split('=').next() == Some("--kubeconfig"))
    };
    let variable = env::var_os("KUBECONFIG").filter(|it| !it.is_empty());
    args.arguments.iter().any(flag)
        || args.on_path
            && variable.is_some_and(|it| !kubeconfig::same_place(Path::new(&it), machines))
}

fn needs_no_cluster(tool: Tool, arguments: &[OsString]) -> bool {
    let is_local = |it: &OsString| it.to_str().is_some_and(|it| LOCAL.contains(&it));
    let asks = |it: &OsString| ["--help", "-h", "--client"].iter().any(|flag| it == flag);
    tool == Tool::Kubectl && (arguments.first().is_none_or(is_local) || arguments.iter().any(asks))
}

/// Requires a running guest that is not paused, and its kubeconfig.
async fn require_cluster(
    state: &State,
    record: &Record,
    project: &Project,
) -> Result<(), MachineError> {
    if !matches!(state, State::Running(..)) {
        return Err(MachineError::not_running(project, record));
    }
    kubeconfig::of(record)?;
    // The tool would wait for an answer until its own timeout. QEMU answers at once, if no other client is connected.
    let paused = tokio::time::timeout(ANSWER_TIMEOUT, is_paused(project)).await;
    if paused.is_ok_and(|it| it.is_ok_and(|paused| paused)) {
        return Err(MachineError::Paused);
    }
    Ok(())
}

/// Replaces this process with the tool; returns only an error.
pub(crate) async fn run(
    tool: Tool,
    args: &Args,
    context: &Context,
) -> Result<ExitCode, CommandError> {
    let state = State::observe(&context.project)?;
    let Some(record) = state.record() else {
        return Err(MachineError::absent(&context.project).into());
    };
    let another = chooses_another(args, &record.kubeconfig);
    if !another && !needs_no_cluster(tool, &args.arguments) {
        require_cluster(&state, record, &context.project).await?;
    }
    let kubeconfig = (!another).then_some(record.kubeconfig.as_path());
    let this = env::current_exe().unwrap_or_default();
    let k3s_data = context.cache.join(trust::K3S_DATA);
    match tool.command(&this, &record.release.binary, &k3s_data) {
        Some(command) => {
            if command.get_program() == record.release.binary {
                trust::own_private_dir(&k3s_data).map_err(MachineError::from)?;
            }
            let error = exec(command, &args.arguments, kubeconfig);
            Err(CommandError::new(format!("cannot run {}", tool.name())).because(&error))
        }
        None => {
            let fix = if tool == Tool::K9s {
                &hints::INSTALL_K9S
            } else {
                &hints::INSTALL_KUBECTL
            };
            let mut what = format!("{} is not on the PATH", tool.name());
            if tool == Tool::Kubectl && record.release.binary.is_file() {
                let k3s = record.release.binary.display();
                what += &format!(", and its stand-in {k3s} may not be run there (noexec?)");
            }
            let error = CommandError::new(what).with_code(code::NOT_FOUND);
            Err(hints::for_this_host(fix)
                .into_iter()
                .fold(error, CommandError::hint))
        }
    }
}
