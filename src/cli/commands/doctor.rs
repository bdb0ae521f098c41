//! `doctor`: checks the host, and prints the command for each distribution that installs what is missing.

use std::{path::PathBuf, process::ExitCode};

use serde::Serialize;

use crate::{
    base::{Forward, Size, files},
    cli::{
        commands::bundle,
        context::Context,
        error::{CommandError, code},
        hints::{self, DISTRIBUTIONS, Fix},
        terminal::{output::Output, sanitize::sanitize},
    },
    k3s::tools::Tool,
    machine::{
        error::machine::describe_kvm,
        guest_config::host_dns::{self, HostDns},
        model::host::{self, Host},
    },
    project::user,
    qemu::{features, file_access, firmware, kvm::Kvm, version},
};

/// The arguments of `doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm doctor\n  \
    k3s-vm doctor --json\n  \
    k3s-vm doctor --bundle          # an archive for a bug report")]
pub struct Args {
    /// Print one JSON document with a "schema" number
    #[arg(long)]
    json: bool,
    /// Write an archive for a bug report, without keys, tokens and passwords [default: k3s-vm-bundle-<time>.tar.gz]
    #[arg(long, value_name = "FILE", num_args = 0..=1, conflicts_with = "json")]
    bundle: Option<Option<PathBuf>>,
}

/// The layout of the JSON document.
const SCHEMA: u32 = 1;

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    ok: bool,
    checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    result: Outcome,
    found: String,
    /// A command for each distribution, if one helps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fixes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    /// k3s-vm works without it, with a restriction.
    Optional,
    /// k3s-vm does not work without it.
    Missing,
}

pub(crate) async fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let checks = checks(context).await;
    let ok = checks.iter().all(|check| check.result != Outcome::Missing);
    let report = Report {
        schema: SCHEMA,
        ok,
        checks,
    };
    if let Some(file) = &args.bundle {
        return bundle::write(file.as_deref(), &screen(&report), context, output).await;
    }
    if args.json {
        output.document(&report)?;
    } else {
        output.data(&sanitize(&screen(&report)));
    }
    Ok(ExitCode::from(if ok { 0 } else { code::FAILURE }))
}

fn screen(report: &Report) -> String {
    let mut text = String::new();
    for check in &report.checks {
        let mark = match check.result {
            Outcome::Ok => "ok      ",
            Outcome::Optional => "optional",
            Outcome::Missing => "missing ",
        };
        text += &format!("{mark}  {:<12} {}\n", check.name, check.found);
        for fix in &check.fixes {
            text += &format!("          {:<12} {fix}\n", "");
        }
    }
    text
}

async fn checks(context: &Context) -> Vec<Check> {
    let mut checks = vec![];
    match Host::detect(&context.cache) {
        Ok(host) => {
            let found = format!("{} at {}", host.version, host.qemu.display());
            let qemu = match features::lacks(&host.qemu) {
                None => ok("QEMU", found),
                Some(what) => lacking(
                    "QEMU",
                    Outcome::Missing,
                    format!("{found} was built without {what}"),
                    fixes(&hints::INSTALL_QEMU),
                ),
            };
            checks.extend([qemu, kvm(&host).await, uefi(&host)]);
        }
        Err(error) => checks.push(lacking(
            "QEMU",
            Outcome::Missing,
            error.to_string(),
            fixes(&hints::INSTALL_QEMU),
        )),
    }
    checks.extend([
        landlock(),
        user(),
        dns(context).await,
        memory(),
        space("project", context.project.root()),
        space("cache", &context.cache),
        api_port(),
        kubectl(),
        k9s(),
    ]);
    checks
}

async fn kvm(host: &Host) -> Check {
    let broken = match host.kvm().await {
        Kvm::Works => return ok("KVM", "runs guests".to_owned()),
        broken => broken,
    };
    let found = format!(
        "{}; guests are emulated, many times slower",
        describe_kvm(broken)
    );
    let fixes = match broken {
        Kvm::Missing => fixes(&hints::LOAD_KVM),
        Kvm::NoPermission => fixes(&hints::JOIN_KVM),
        other => hints::of_kvm(other),
    };
    lacking("KVM", Outcome::Optional, found, fixes)
}

fn uefi(host: &Host) -> Check {
    match firmware::find_uefi(&host.qemu) {
        Some(uefi) => ok("UEFI", uefi.code.display().to_string()),
        None => lacking(
            "UEFI",
            Outcome::Optional,
            "no firmware; only --firmware uefi needs it".to_owned(),
            fixes(&hints::INSTALL_UEFI),
        ),
    }
}

fn landlock() -> Check {
    const NAME: &str = "Landlock";
    if file_access::is_supported() {
        ok(NAME, "QEMU can open only the files of its VM".to_owned())
    } else {
        let found = "not in this kernel (Linux 5.19 and later have it); QEMU can open all files that you can";
        lacking(NAME, Outcome::Optional, found.to_owned(), Vec::new())
    }
}

fn user() -> Check {
    const NAME: &str = "user";
    if host::is_root() {
        return lacking(
            NAME,
            Outcome::Optional,
            host::AS_ROOT.to_owned(),
            Vec::new(),
        );
    }
    let found = if nix::unistd::getuid().is_root() {
        "root of a container"
    } else {
        "not root"
    };
    ok(NAME, found.to_owned())
}

fn api_port() -> Check {
    match host::check_port(Forward::tcp(6443, 6443).host) {
        Ok(()) => ok("port 6443", "free".to_owned()),
        Err(error) => lacking(
            "port 6443",
            Outcome::Optional,
            format!("{error}; a new VM takes a free one"),
            Vec::new(),
        ),
    }
}

fn kubectl() -> Check {
    let path = version::find_program(Tool::Kubectl.name());
    let found = path.map(|path| path.display().to_string());
    ok(
        Tool::Kubectl.name(),
        found.unwrap_or_else(|| "not on the PATH; the cached k3s stands in for it".to_owned()),
    )
}

fn k9s() -> Check {
    match version::find_program(Tool::K9s.name()) {
        Some(path) => ok(Tool::K9s.name(), path.display().to_string()),
        None => lacking(
            Tool::K9s.name(),
            Outcome::Optional,
            "not on the PATH".to_owned(),
            fixes(&hints::INSTALL_K9S),
        ),
    }
}

/// The DNS servers of the guest. They are tested only if they are the host's.
async fn dns(context: &Context) -> Check {
    const NAME: &str = "DNS";
    let config = user::chosen(&context.project).unwrap_or_default();
    if let Some(chosen) = host_dns::chosen(&config.network) {
        return ok(NAME, format!("{}, by --dns", host_dns::list(chosen)));
    }
    if config.isolated == Some(true) {
        return ok(NAME, "not used: the guest is isolated".to_owned());
    }
    match HostDns::probe().await {
        dns @ HostDns::Forwarded(_) => ok(NAME, dns.describe()),
        dns => lacking(
            NAME,
            Outcome::Optional,
            dns.describe(),
            vec!["k3s-vm setup --dns ADDRESS".to_owned()],
        ),
    }
}

/// The default memory of a VM.
const MEMORY: Size = Size::gib(4);

/// The space for image, release and a new overlay.
const SPACE: Size = Size::gib(4);

fn memory() -> Check {
    match host::available_memory() {
        Some(available) if available < MEMORY => {
            let found = format!(
                "{} available, a VM takes {MEMORY} by default",
                available.approximate()
            );
            lacking(
                "memory",
                Outcome::Optional,
                found,
                vec!["k3s-vm setup --memory 2GiB".to_owned()],
            )
        }
        Some(available) => ok("memory", format!("{} available", available.approximate())),
        None => ok("memory", "not known".to_owned()),
    }
}

fn space(name: &'static str, path: &std::path::Path) -> Check {
    match files::free_space(path).map(|space| space.bytes) {
        Ok(free) if free < SPACE => lacking(
            name,
            Outcome::Missing,
            format!(
                "{} free at {}, about {SPACE} is needed",
                free.approximate(),
                path.display()
            ),
            Vec::new(),
        ),
        Ok(free) => ok(
            name,
            format!("{} free at {}", free.approximate(), path.display()),
        ),
        Err(error) => lacking(name, Outcome::Missing, error.to_string(), Vec::new()),
    }
}

fn ok(name: &'static str, found: String) -> Check {
    Check {
        name,
        result: Outcome::Ok,
        found,
        fixes: Vec::new(),
    }
}

fn lacking(name: &'static str, result: Outcome, found: String, fixes: Vec<String>) -> Check {
    Check {
        name,
        result,
        found,
        fixes,
    }
}

fn fixes(fix: &Fix) -> Vec<String> {
    DISTRIBUTIONS
        .iter()
        .zip(fix)
        .map(|(name, command)| format!("{name}: {command}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_matches_its_snapshot() {
        let report = Report {
            schema: SCHEMA,
            ok: false,
            checks: vec![
                ok("memory", "8 GiB available".to_owned()),
                lacking(
                    "QEMU",
                    Outcome::Missing,
                    "gone".to_owned(),
                    vec!["a".to_owned()],
                ),
                lacking("KVM", Outcome::Optional, "none".to_owned(), Vec::new()),
            ],
        };
        let json = serde_json::to_string_pretty(&report).expect("JSON");
        insta::assert_snapshot!(json);
    }
}
