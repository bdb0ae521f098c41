//! The command line. Doc comments are the help text.

use std::path::PathBuf;

use clap::{ColorChoice, Parser, Subcommand};

use super::commands::{
    cache, completions, cp, doctor, env, image, kubeconfig, list, logs, man, pause, port, reset,
    restart, resume, setup, snapshot, ssh, ssh_config, start, status, stop, tool, trim,
};

/// A local k3s cluster in a virtual machine: rootless, with nothing installed but QEMU
///
/// Everything of a project's machine lies in .k3s-vm/ of the project, its kubeconfig in .kube/config (or
/// web/.kube/config); your own ~/.kube/config is touched only by `kubeconfig --merge`.
#[derive(Debug, Parser)]
#[command(
    name = "k3s-vm",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(after_help = "Examples:\n  \
    k3s-vm setup                    # from nothing to a node that is Ready\n  \
    k3s-vm kubectl get nodes\n  \
    k3s-vm stop; k3s-vm start\n  \
    k3s-vm reset                    # and it is gone\n\n\
    When something fails, `k3s-vm doctor` looks at the host and `k3s-vm logs` at the machine.")]
pub struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every verb.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Global {
    /// Work on the project of DIR instead of the current directory's
    #[arg(short = 'C', value_name = "DIR", global = true)]
    pub directory: Option<PathBuf>,
    /// Show what is done in detail
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Show only warnings, errors and results
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show everything, QEMU's command line included
    #[arg(long, global = true, env = "DEBUG", value_parser = clap::builder::FalseyValueParser::new())]
    pub debug: bool,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
    /// Keep a copy of the log in FILE
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LOG_FILE",
        hide = true
    )]
    pub log_file: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the machine, boot it and install k3s, until the node is Ready
    Setup(Box<setup::Args>),
    /// Boot the stopped machine, or have a suspended one go on, until the node is Ready
    Start(start::Args),
    /// Stop k3s and power the machine off, or suspend it
    Stop(stop::Args),
    /// Power the machine off and boot it, until the node is Ready
    Restart(restart::Args),
    /// Have the machine stand still; it keeps its memory, and takes no processor time
    Pause(pause::Args),
    /// Have a paused or suspended machine go on, until the node is Ready
    Resume(resume::Args),
    /// Show the machine, its ports and its cluster
    Status(status::Args),
    /// Remove the machine with all that is in it
    Reset(reset::Args),
    /// Keep the machine as it is now, or bring it back as it was
    Snapshot(snapshot::Args),
    /// Give back to the host what the guest has freed of its disk
    Trim(trim::Args),
    /// Run kubectl on the machine's cluster
    #[command(disable_help_flag = true, disable_version_flag = true, after_help = tool::KUBECTL_HELP)]
    Kubectl(tool::Args),
    /// Run k9s on the machine's cluster
    #[command(disable_help_flag = true, disable_version_flag = true, after_help = tool::K9S_HELP)]
    K9s(tool::Args),
    /// Forward ports of 127.0.0.1 into the guest
    Port(port::Args),
    /// Look at what the host has and lacks
    Doctor(doctor::Args),
    /// Show what all projects share, or remove what none needs
    Cache(cache::Args),
    /// Load container images into the node, list or remove them
    Image(image::Args),
    /// Open a shell in the guest, or run a command there
    Ssh(ssh::Args),
    /// Print what OpenSSH, scp, rsync and editors need to connect to the guest
    SshConfig(ssh_config::Args),
    /// Copy files and folders between this host and the guest
    Cp(cp::Args),
    /// Show the logs that explain a failed start
    Logs(logs::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    /// Print where the kubeconfig is, or merge it into your own
    ///
    /// Without a flag, prints the path of the machine's kubeconfig.
    ///
    /// --merge puts the machine's cluster, user and context, all called as the machine, into your own kubeconfig, and
    /// --unmerge takes them out again. That is ~/.kube/config, or what kubectl would write to: of the files in KUBECONFIG
    /// the first one that is there. All else in it stays as it is, comments too, and so does the current context; a copy
    /// of what it was lies beside it. A start that takes another port wants another --merge.
    Kubeconfig(kubeconfig::Args),
    /// Print what makes a shell use the machine's cluster
    ///
    /// KUBECONFIG is the machine's, and the kubectl and k9s of .k3s-vm/bin come first in PATH; they stay with this
    /// project's machine in whatever directory you call them.
    Env(env::Args),
    /// List the machines of all projects
    ///
    /// A copy of a project is known from its next start on; one that was moved is shown where it was, until its next
    /// start.
    List(list::Args),
    /// Print the manual, or write its pages
    Man(man::Args),
}

impl Command {
    /// Whether stdout is for a program that reads what happens, line by line.
    pub(super) fn tells_events(&self) -> bool {
        match self {
            Self::Setup(args) => args.tells_events(),
            Self::Start(args) => args.tells_events(),
            _ => false,
        }
    }
}
