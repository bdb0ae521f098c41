//! A stand-in for the `k3s` binary, for guests that cannot download the real one.
//!
//! It has k3s's surroundings and none of its insides: the same command line, configuration file, unit behaviour
//! (`Type=notify`, exit 0 on SIGTERM), files, certificates and the few API resources that `kubectl` needs to show a node
//! and to keep a config map. What it serves can be told from the real thing only by `(stand-in)` in `k3s --version`.
//!
//! A test that serves it as a release appends lines to the ELF file (see [`trailer`]); the last one is its version:
//!
//! ```text
//! k3s-stand-in-crashes=2
//! k3s-stand-in-version=v1.33.5+k3s1
//! ```

mod api;
mod certs;
mod config;
mod ctr;
mod kubeconfig;
mod kubectl;
mod objects;
mod protobuf;
mod server;
mod state;
mod tls;
mod trailer;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// Lightweight Kubernetes (a stand-in for tests).
#[derive(Parser)]
#[command(name = "k3s", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the management server.
    Server(config::ServerArgs),
    /// Run kubectl.
    Kubectl(kubectl::KubectlArgs),
    /// Run ctr.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Ctr(ctr::CtrArgs),
}

/// What the program's file, or a link to it, is called.
fn called() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&program).file_name();
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Like a multi-call binary: a link named `kubectl` is the subcommand of that name.
fn command_line() -> Vec<std::ffi::OsString> {
    let mut args: Vec<_> = std::env::args_os().collect();
    if called() == "kubectl" {
        args.insert(1, "kubectl".into());
    }
    args
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    k3s_vm::base::tls::provide();
    let version = format!(
        "version {} (stand-in)\ngo version go1.24.6",
        trailer::version()
    );
    let matches = Cli::command()
        .display_name(called())
        .version(&*version.leak())
        .get_matches_from(command_line());
    match Cli::from_arg_matches(&matches)
        .unwrap_or_else(|error| error.exit())
        .command
    {
        Command::Server(args) => server::run(&args).await.unwrap_or_else(|error| {
            log("fatal", &error.to_string());
            ExitCode::FAILURE
        }),
        Command::Kubectl(args) => kubectl::run(args).await,
        Command::Ctr(args) => ctr::run(&args),
    }
}

/// Any failure ends the program with its text, which is all that a log line needs.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One line as k3s (logrus) writes it to the journal.
#[expect(clippy::print_stderr, reason = "a test program: stderr is its log")]
fn log(level: &str, message: &str) {
    eprintln!("time=\"{}\" level={level} msg={message:?}", state::now());
}
