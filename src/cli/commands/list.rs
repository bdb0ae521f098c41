//! `list`: the VMs of all projects.

use std::{fmt::Write, process::ExitCode};

use crate::{
    base::Size,
    cli::{
        context::Context,
        error::CommandError,
        terminal::{output::Output, sanitize::sanitize},
    },
    machine::report::list::{self, MachineState, MachineSummary},
};

/// The arguments of `list`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm list\n  \
    k3s-vm list --json | jq -r '.machines[] | select(.state == \"running\").project'\n\n\
    When it fails:\n  \
    A VM that is missing was set up with another K3S_VM_CACHE_DIR. `k3s-vm -C PROJECT status` shows more of one VM.")]
pub struct Args {
    /// Print one JSON document with a "schema" number
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let list = list::list(&context.cache).await;
    if args.json {
        output.document(&list)?;
    } else if list.machines.is_empty() {
        tracing::info!("no VMs; create one: k3s-vm setup");
    } else {
        output.data(&sanitize(&table(&list.machines)));
    }
    Ok(ExitCode::SUCCESS)
}

const HEADINGS: [&str; 7] = [
    "NAME", "STATE", "CPUS", "MEMORY", "USED", "PORTS", "PROJECT",
];

/// A table with columns as wide as their widest cell; the last one has the paths.
fn table(machines: &[MachineSummary]) -> String {
    let headings = HEADINGS.map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(headings)
        .chain(machines.iter().map(row))
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEADINGS.len() - 1).map(width).collect();
    let mut table = String::new();
    for row in &rows {
        for (cell, &width) in row.iter().zip(&widths) {
            let _ = write!(table, "{cell:<width$}  ");
        }
        let _ = writeln!(table, "{}", row[HEADINGS.len() - 1]);
    }
    table
}

fn row(machine: &MachineSummary) -> [String; 7] {
    let unknown = || "-".to_owned();
    let size = |bytes: Option<u64>| bytes.map_or_else(unknown, |it| Size::bytes(it).approximate());
    let state = match machine.state {
        MachineState::Running => "running",
        MachineState::Suspended => "suspended",
        MachineState::Stopped => "stopped",
        MachineState::Damaged => "damaged",
        MachineState::Moved => "moved",
    };
    let ports = [("API", machine.api_port), ("SSH", machine.ssh_port)];
    let ports: Vec<String> = ports
        .iter()
        .filter_map(|(what, port)| Some(format!("{what} {}", (*port)?)))
        .collect();
    let vm = machine.vm.as_ref();
    let reason = machine.reason.as_ref().and_then(|it| it.lines().next());
    [
        machine
            .name
            .as_ref()
            .map_or_else(unknown, ToString::to_string),
        state.to_owned(),
        machine.cpus.map_or_else(unknown, |it| it.to_string()),
        size(machine.memory),
        size(machine.disk_used),
        if ports.is_empty() {
            unknown()
        } else {
            ports.join(", ")
        },
        machine.project.display().to_string()
            + &vm.map_or_else(String::new, |it| format!(" --name {it}"))
            + &reason.map_or_else(String::new, |it| format!(" ({it})")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines() -> Vec<MachineSummary> {
        let shop = MachineSummary {
            name: "k3s-shop-1a2b3c".parse().ok(),
            state: MachineState::Running,
            project: "/home/ada/shop".into(),
            vm: None,
            cpus: Some(2),
            memory: Some(4 << 30),
            disk_used: Some(23_800_000),
            api_port: Some(6443),
            ssh_port: Some(42527),
            reason: None,
        };
        let gone = MachineSummary {
            name: None,
            state: MachineState::Moved,
            project: "/home/ada/cart".into(),
            vm: None,
            cpus: None,
            memory: None,
            disk_used: None,
            api_port: None,
            ssh_port: None,
            reason: None,
        };
        let damaged = MachineSummary {
            state: MachineState::Damaged,
            project: "/home/ada/a b".into(),
            reason: Some("the record is torn".to_owned()),
            ..gone.clone()
        };
        let next = MachineSummary {
            name: "k3s-shop-next-1a2b3c".parse().ok(),
            vm: "next".parse().ok(),
            api_port: Some(40123),
            ssh_port: None,
            state: MachineState::Stopped,
            ..shop.clone()
        };
        vec![damaged, gone, shop, next]
    }

    #[test]
    fn table_and_json_match_their_snapshots() {
        let list = list::List {
            schema: 1,
            machines: machines(),
        };
        insta::assert_snapshot!("table", table(&list.machines));
        let json = serde_json::to_string_pretty(&list).expect("JSON");
        insta::assert_snapshot!("document", json);
    }
}
