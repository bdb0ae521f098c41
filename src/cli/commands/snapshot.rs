//! `snapshot`: creates, restores, lists and deletes snapshots.

use std::{fmt::Write, process::ExitCode};

use serde::Serialize;

use crate::{
    base::SnapshotName,
    cli::{
        commands::{setup, status::time},
        context::{Context, require_machine},
        error::{CommandError, code},
        interrupt,
        terminal::{
            confirm::{confirm_change, require_terminal},
            output::Output,
            sanitize::sanitize,
        },
    },
    machine::{
        Machine, MachineError,
        lifecycle::setup as bring_up,
        snapshots::{create, delete, restore},
    },
    project::{
        Config, Project, Snapshot,
        config_values::Timeout,
        snapshot::{self, Found},
    },
};

/// The arguments of `snapshot`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm snapshot create before-upgrade\n  \
    k3s-vm snapshot list\n  \
    k3s-vm snapshot restore before-upgrade\n  \
    k3s-vm snapshot restore before-upgrade --yes   # for scripts\n  \
    k3s-vm snapshot delete before-upgrade\n\n\
    When it fails:\n  \
    The VM is unchanged, and no incomplete snapshot is left: run it again. A snapshot needs disk space for the disk \
    file and for the memory that the guest uses. If the memory is unusable, e.g. after an update of QEMU, the VM boots \
    from the disk of the snapshot.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Save the VM and print the snapshot's name
    ///
    /// A running VM is paused for a second or a few.
    Create {
        /// Name of letters, digits, '.', '_' and '-' [default: the time]
        name: Option<SnapshotName>,
    },
    /// List the snapshots of the VM
    List {
        /// Print one JSON document with a "schema" number
        #[arg(long)]
        json: bool,
    },
    /// Roll the VM back to a snapshot
    ///
    /// Changes in the cluster since the snapshot are lost. A VM that was running is started again.
    Restore {
        /// Snapshot to restore
        name: SnapshotName,
        /// Do not ask for confirmation
        #[arg(long, short, visible_alias = "force")]
        yes: bool,
        /// Start the VM even if it is not running now
        #[arg(long)]
        start: bool,
        /// Limit until the node is Ready, e.g. 5m [default: 5m with KVM, 30m without]
        #[arg(long, value_name = "DURATION")]
        timeout: Option<Timeout>,
    },
    /// Delete snapshots
    Delete {
        /// Snapshots to delete
        #[arg(required = true)]
        names: Vec<SnapshotName>,
    },
}

pub(crate) async fn run(
    args: Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    match args.verb {
        Verb::Create { name } => create(name, context, output).await,
        Verb::List { json } => list(json, &context.project, output),
        Verb::Restore {
            name,
            yes,
            start,
            timeout,
        } => {
            restore::usable(&context.project, &name)?;
            if !yes && !confirm_restore(&context.project, &name, output)? {
                return Ok(ExitCode::from(code::FAILURE));
            }
            let flags = Config {
                timeout,
                ..Config::default()
            };
            restore(&name, start, flags, context, output).await
        }
        Verb::Delete { names } => delete(&names, context).await,
    }
}

async fn create(
    name: Option<SnapshotName>,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let project = context.project.clone();
    let work = async |machine: &Machine| create::create(machine, name).await;
    let name = interrupt::run_on_machine(context, "snapshot create", work).await?;
    let all = snapshot::list(&project).map_err(MachineError::from)?;
    if let Some(found) = all.iter().find(|it| it.name == name)
        && let Ok(snapshot) = &found.snapshot
    {
        let (what, used) = (contents(snapshot), found.used.approximate());
        tracing::info!("created snapshot {name}: {what}, {used}");
    }
    output.data(&format!("{name}\n"));
    Ok(ExitCode::SUCCESS)
}

fn confirm_restore(
    project: &Project,
    name: &SnapshotName,
    output: &Output,
) -> Result<bool, CommandError> {
    let unasked = format!("k3s-vm snapshot restore {name} --yes");
    require_terminal("before replacing the VM", &unasked)?;
    let root = project.root().display();
    let question =
        format!("Roll the VM of {root} back to snapshot {name}? Later changes are lost.");
    confirm_change(&question, output)
}

async fn restore(
    name: &SnapshotName,
    start: bool,
    flags: Config,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let work = async |machine: &Machine| {
        let ran = restore::restore(machine, name).await?;
        tracing::info!("restored snapshot {name}");
        if !ran && !start {
            return Ok(None);
        }
        let started = bring_up::start(machine, flags, false).await;
        started.map(Some)
    };
    match interrupt::run_on_machine(context, "snapshot restore", work).await? {
        Some(summary) => setup::print_summary(&summary, false, output),
        None => tracing::info!("to start it: k3s-vm start"),
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(names: &[SnapshotName], context: Context) -> Result<ExitCode, CommandError> {
    let work = async |machine: &Machine| delete::delete(machine, names).await;
    interrupt::run_on_machine(context, "snapshot delete", work).await?;
    for name in names {
        tracing::info!("removed {name}");
    }
    Ok(ExitCode::SUCCESS)
}

/// The layout of the JSON document.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
struct Listed<'a> {
    schema: u32,
    snapshots: Vec<One<'a>>,
}

#[derive(Debug, Serialize)]
struct One<'a> {
    name: &'a str,
    /// Seconds since 1970.
    created: Option<u64>,
    /// Bytes on the host's disk.
    used: u64,
    /// The snapshot has the guest's memory.
    memory: Option<bool>,
    k3s: Option<&'a str>,
    /// The reason why it cannot be restored.
    damaged: Option<&'a str>,
}

impl<'a> One<'a> {
    fn of(found: &'a Found) -> Self {
        let snapshot = found.snapshot.as_ref();
        Self {
            name: found.name.as_str(),
            created: snapshot.map(|it| it.created).ok(),
            used: found.used.as_bytes(),
            memory: snapshot.map(|it| it.memory.is_some()).ok(),
            k3s: snapshot.map(|it| it.release.version.as_str()).ok(),
            damaged: snapshot.err().map(String::as_str),
        }
    }
}

fn list(json: bool, project: &Project, output: &Output) -> Result<ExitCode, CommandError> {
    let all = snapshot::list(project).map_err(MachineError::from)?;
    if json {
        output.document(&Listed {
            schema: SCHEMA,
            snapshots: all.iter().map(One::of).collect(),
        })?;
    } else if all.is_empty() {
        tracing::info!("no snapshots");
    } else {
        output.data(&sanitize(&table(&all)));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(all: &[Found]) -> String {
    let names = all.iter().map(|it| it.name.as_str().len());
    let width = names.max().unwrap_or_default().max("NAME".len());
    let mut table = format!(
        "{:<width$}  {:<20}  {:<15}  {:>9}  K3S\n",
        "NAME", "CREATED", "KEPT", "SIZE"
    );
    for found in all {
        let name = found.name.as_str();
        let line = match &found.snapshot {
            Err(reason) => format!("{name:<width$}  damaged: {reason}"),
            Ok(snapshot) => format!(
                "{name:<width$}  {:<20}  {:<15}  {:>9}  {}",
                time(snapshot.created),
                contents(snapshot),
                found.used.approximate(),
                snapshot.release.version
            ),
        };
        let _ = writeln!(table, "{line}");
    }
    table
}

fn contents(snapshot: &Snapshot) -> &'static str {
    if snapshot.memory.is_some() {
        "disk and memory"
    } else {
        "disk"
    }
}
