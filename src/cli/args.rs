//! The command line. Doc comments are the help text.

use std::fmt::Write;

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    cli::{
        commands::{
            autostart, cache, completions, configure, cp, doctor, env, help, idle_watch, image,
            kubeconfig, list, logs, man, pause, port, reset, restart, resume, setup, snapshot, ssh,
            ssh_config, start, status, stop, tool, trim, trust, upgrade,
        },
        global::Global,
        topics,
    },
    machine::lifecycle,
};

/// A local k3s cluster in a QEMU VM: rootless, with nothing installed but QEMU
///
/// The VM of a project is in its .k3s-vm/ directory, its kubeconfig in .kube/config. Only `kubeconfig --merge` changes
/// your own ~/.kube/config.
#[derive(Debug, Parser)]
#[command(
    name = "k3s-vm",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// The flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// Print the license
    #[arg(long)]
    pub license: bool,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands by group, as `--help` lists them.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Lifecycle",
        &[
            "setup", "start", "stop", "restart", "pause", "resume", "reset",
        ],
    ),
    (
        "Cluster",
        &["status", "kubectl", "k9s", "kubeconfig", "env", "image"],
    ),
    ("Access", &["ssh", "ssh-config", "cp", "port", "logs"]),
    (
        "Maintenance",
        &[
            "configure",
            "upgrade",
            "snapshot",
            "trim",
            "autostart",
            "trust",
        ],
    ),
    (
        "Host",
        &["list", "doctor", "cache", "completions", "man", "help"],
    ),
];

/// The examples and the topics, after the commands and flags.
const EXAMPLES: &str = "Examples:
  k3s-vm setup
  k3s-vm kubectl get nodes
  k3s-vm stop; k3s-vm start
  k3s-vm reset";

/// The whole command line; the program parses with this, so that its help has the groups and topics.
pub(crate) fn command() -> clap::Command {
    let cli = Cli::command();
    let header = *cli.get_styles().get_header();
    let literal = *cli.get_styles().get_literal();
    let mut groups = String::new();
    for (title, names) in GROUPS {
        let _ = writeln!(groups, "{header}{title}:{header:#}");
        for name in names {
            let about = cli.find_subcommand(name).and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(groups, "  {literal}{name:<12}{literal:#} {about}");
        }
        groups.push('\n');
    }
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{header}Options:{header:#}\n{{options}}{{after-help}}"
    );
    let after = format!(
        "{EXAMPLES}\n\nTopics:\n{}\nHelp on a command or a topic: k3s-vm help NAME",
        topics::overview()
    );
    cli.help_template(template).after_help(after)
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create the VM, install k3s and wait for the node
    ///
    /// Creates the VM of the project, or continues a setup that was interrupted, and returns when the node is Ready.
    /// Flags are saved to .k3s-vm/config and apply to each later start. Prints the path of the kubeconfig.
    Setup(Box<setup::Args>),
    /// Start the VM and wait for the node
    ///
    /// Boots a stopped VM or resumes a suspended one, and returns when the node is Ready. Changes in .k3s-vm/config
    /// take effect.
    Start(start::Args),
    /// Shut the VM down, or suspend it
    ///
    /// Stops k3s and shuts the guest down. After the limit, QEMU is ended. With --suspend, the guest's memory is saved
    /// in .k3s-vm/, and the next start resumes it.
    Stop(stop::Args),
    /// Change the size and settings of the VM
    ///
    /// Saves the flags to .k3s-vm/config. Says which changes need a restart, and offers it on a terminal. See also:
    /// k3s-vm help config
    Configure(Box<configure::Args>),
    /// Restart the VM and wait for the node
    ///
    /// Shuts the guest down, boots it, and returns when the node is Ready. The port of the API stays the same. A
    /// stopped VM is started. Changes in .k3s-vm/config take effect.
    Restart(restart::Args),
    /// Pause the VM
    ///
    /// Stops the guest's CPUs. Its memory stays in QEMU. To free the memory as well: k3s-vm stop --suspend
    Pause(pause::Args),
    /// Resume a paused or suspended VM
    ///
    /// Continues the guest, sets its clock, and returns when the node is Ready. A stopped VM is started with `k3s-vm
    /// start`.
    Resume(resume::Args),
    /// Show the VM, its ports and its cluster
    ///
    /// Exit code: 0 running and healthy, 3 stopped or suspended, 4 no VM, 5 running and not healthy, or paused.
    Status(status::Args),
    /// Delete the VM
    ///
    /// Stops the VM and deletes its disk, snapshots, keys and kubeconfig. The config and the shared cache are kept.
    Reset(reset::Args),
    /// Save the VM, or roll it back
    ///
    /// A snapshot has the disk and, unless the VM is stopped, the memory. Snapshots are in .k3s-vm/snapshots/ and are
    /// deleted with the VM. See also: k3s-vm help snapshots
    Snapshot(snapshot::Args),
    /// Reclaim disk space that the guest has freed
    ///
    /// The disk file grows with each block that the guest writes. This reclaims the blocks that the guest does not use.
    /// A clean stop does the same.
    Trim(trim::Args),
    /// Trust a project of another user, or an edited config
    ///
    /// A VM is used if this user's k3s-vm created it on this host. A config that mounts directories, downloads from a
    /// mirror, or reads or writes other files of this host is used if flags wrote it, or after this command. Shows what
    /// is not trusted and asks.
    Trust(trust::Args),
    /// Upgrade k3s, with a rollback on failure
    ///
    /// Downloads and verifies the release, takes a snapshot, and replaces k3s. Returns when the node is Ready. If it
    /// does not become Ready, the snapshot is restored. k3s goes up one minor version at a time. See also: k3s-vm help
    /// upgrades
    Upgrade(upgrade::Args),
    /// Run kubectl on the VM's cluster
    #[command(disable_help_flag = true, disable_version_flag = true, after_help = tool::KUBECTL_HELP)]
    Kubectl(tool::Args),
    /// Run k9s on the VM's cluster
    #[command(disable_help_flag = true, disable_version_flag = true, after_help = tool::K9S_HELP)]
    K9s(tool::Args),
    /// Forward ports of 127.0.0.1 to the guest
    ///
    /// Added ports are forwarded at once and at each later start. See also: k3s-vm help ports
    Port(port::Args),
    /// Check the host
    ///
    /// Prints the command that fixes each problem. Exit code: 0 if a VM can be set up, 1 if something is missing.
    Doctor(doctor::Args),
    /// List, prune, export or import the shared cache
    ///
    /// All projects share base images, k3s releases, and templates: the disks and memory that a first setup captures.
    /// Images and releases can be exported to a host without internet. See also: k3s-vm help offline
    Cache(cache::Args),
    /// Load, list or remove container images
    ///
    /// Images come from Docker, Podman or nerdctl on this host, or from an archive, and go to k3s's containerd. Layers
    /// that the node has are not sent again. See also: k3s-vm help images
    Image(image::Args),
    /// Open a shell in the guest, or run a command
    ///
    /// Logs in as root, with the VM's own key. The exit code is that of the command, or 128 and the signal's number.
    Ssh(ssh::Args),
    /// Print a configuration for OpenSSH
    ///
    /// Prints a block for ~/.ssh/config, which scp, rsync and editors can use. The next start may use another port:
    /// print it again then.
    SshConfig(ssh_config::Args),
    /// Copy files between this host and the guest
    ///
    /// A path of the guest starts with a colon; a relative one starts in /root. Directories are copied with their
    /// contents, modes, times and links. In an existing directory, the copy gets the name of the source. With /. after
    /// the source, its contents are copied. A file is replaced when the new one is complete.
    Cp(cp::Args),
    /// Show the logs of the VM
    ///
    /// The logs of the console and of QEMU are also there for a stopped VM. Those of k3s and cloud-init come from the
    /// running guest. `all` shows the console first, for its lines have no time, and sorts the others by time (UTC).
    Logs(logs::Args),
    /// Print completions for a shell
    ///
    /// They complete commands, flags, and the names of snapshots, ports, images and projects.
    Completions(completions::Args),
    /// Print the kubeconfig, or merge it into yours
    ///
    /// Prints the path of the VM's kubeconfig. With --merge, adds the VM's cluster, user and context to your own
    /// kubeconfig: the first existing file of KUBECONFIG, or ~/.kube/config. Everything else in it stays as it is, with
    /// comments and the current context, and a backup is written. If a start uses another port, merge again.
    Kubeconfig(kubeconfig::Args),
    /// Print shell code that selects the cluster
    ///
    /// Sets KUBECONFIG to the VM's kubeconfig and puts the kubectl and k9s of .k3s-vm/bin first in PATH. They use this
    /// VM from any directory.
    Env(env::Args),
    /// List the VMs of all projects
    ///
    /// A copy of a project is listed after its next start. A project that was moved is listed at its old place until
    /// its next start.
    List(list::Args),
    /// Start the VM when you log in
    ///
    /// Installs a unit of your user's systemd, which starts the VM at login and stops it at logout. With suspend = true
    /// in the config, it suspends and resumes the VM.
    Autostart(autostart::Args),
    /// Suspend the VM when it is idle
    #[command(name = lifecycle::idle::VERB, hide = true)]
    IdleWatch(idle_watch::Args),
    /// Print the manual, or write its pages
    ///
    /// Without a directory, prints the page of k3s-vm. With one, writes the pages of all commands (section 1) and topics
    /// (section 7).
    Man(man::Args),
    /// List commands and topics, or show the help of one
    ///
    /// A topic is a longer text, like `k3s-vm help network`.
    Help(help::Args),
}

impl Command {
    /// Returns `true` when the command counts as use of the VM for its idle watch.
    pub(crate) const fn is_use(&self) -> bool {
        !matches!(
            self,
            Self::IdleWatch(_)
                | Self::Autostart(_)
                | Self::Cache(_)
                | Self::Doctor(_)
                | Self::List(_)
        )
    }

    /// Returns `true` when the command is about one VM.
    pub(crate) const fn is_about_one_vm(&self) -> bool {
        !matches!(
            self,
            Self::Cache(_)
                | Self::Doctor(_)
                | Self::List(_)
                | Self::Completions(_)
                | Self::Man(_)
                | Self::Help(_)
        )
    }

    /// Returns `true` when the command uses files of the project, and so asks about a project that is not trusted.
    pub(crate) const fn needs_trust(&self) -> bool {
        self.is_use() && !matches!(self, Self::Reset(_) | Self::Trust(_) | Self::Stop(_))
    }

    /// Returns `true` when stdout carries events for a program, line by line.
    pub(crate) fn prints_events(&self) -> bool {
        match self {
            Self::Setup(args) => args.prints_events(),
            Self::Start(args) => args.prints_events(),
            Self::Upgrade(args) => args.prints_events(),
            _ => false,
        }
    }
}
