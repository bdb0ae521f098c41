//! `k3s ctr`: the real `ctr`, on a real containerd with the socket and the directories of k3s's own. It is started by the
//! first one who asks, for most guests never need it.

use std::{
    ffi::OsString,
    fs,
    os::unix::{fs::DirBuilderExt, net::UnixStream, process::CommandExt},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, log};

const SOCKET: &str = "/run/k3s/containerd/containerd.sock";
const CONFIG: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
/// There are no pods here, so nothing of Kubernetes is in it.
const SETTINGS: &str = r#"version = 2
root = "/var/lib/rancher/k3s/agent/containerd"
state = "/run/k3s/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]

[grpc]
  address = "/run/k3s/containerd/containerd.sock"
"#;
/// An emulated guest takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub(crate) struct CtrArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Becomes `ctr`.
pub(crate) fn run(args: &CtrArgs) -> ExitCode {
    let only_asks = args.words.iter().any(|word| word == "--version");
    if !only_asks && let Err(error) = serve() {
        log("fatal", &format!("containerd: {error}"));
        return ExitCode::FAILURE;
    }
    let error = Command::new("/usr/bin/ctr")
        .args(["--address", SOCKET])
        .args(&args.words)
        .exec();
    log("fatal", &format!("ctr: {error}"));
    ExitCode::FAILURE
}

/// As a unit of its own: what starts it ends long before it does.
fn serve() -> Result<(), Failure> {
    if UnixStream::connect(SOCKET).is_ok() {
        return Ok(());
    }
    let mut folder = fs::DirBuilder::new();
    folder.recursive(true).mode(0o700);
    folder.create("/var/lib/rancher/k3s/agent/etc/containerd")?;
    fs::write(CONFIG, SETTINGS)?;
    // Of two at once, the second one fails for the name and waits for the first one's.
    let _ = Command::new("systemd-run")
        .args(["--quiet", "--collect", "--unit=k3s-containerd"])
        .args(["/usr/bin/containerd", "--config", CONFIG])
        .output()?;
    let began = Instant::now();
    while UnixStream::connect(SOCKET).is_err() {
        if began.elapsed() > PATIENCE {
            return Err("it does not answer".into());
        }
        thread::sleep(POLL);
    }
    Ok(())
}
