//! The command line. Doc comments are the help text.

use clap::{Parser, Subcommand};

use crate::{
    cli::{
        commands::{
            autostart, cache, completions, configure, cp, doctor, env, idle_watch, image,
            kubeconfig, list, logs, man, pause, port, reset, restart, resume, setup, snapshot, ssh,
            ssh_config, start, status, stop, tool, trim, upgrade,
        },
        global::Global,
    },
    machine::lifecycle,
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

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the machine, boot it and install k3s, until the node is Ready
    ///
    /// Flags are saved to .k3s-vm/config and hold for every later start.
    Setup(Box<setup::Args>),
    /// Boot the stopped machine, or have a suspended one go on, until the node is Ready
    ///
    /// A suspended machine goes on where it was. A changed .k3s-vm/config takes effect.
    Start(start::Args),
    /// Stop k3s and power the machine off, or suspend it
    ///
    /// k3s is stopped, the guest powers itself off; after the deadline QEMU is told to quit. With --suspend, the
    /// guest's memory is kept in .k3s-vm/ instead, and the next start goes on where it was, within seconds.
    Stop(stop::Args),
    /// Change the machine: its size, k3s's settings, the guest's network
    ///
    /// The flags are saved to .k3s-vm/config. What needs a restart is said, and on a terminal the restart is offered.
    Configure(Box<configure::Args>),
    /// Power the machine off and boot it, until the node is Ready
    ///
    /// k3s is stopped, the guest powers itself off and is booted; returns when the node is Ready. The API keeps its
    /// port. A stopped machine is started, and a changed .k3s-vm/config takes effect.
    Restart(restart::Args),
    /// Have the machine stand still; it keeps its memory, and takes no processor time
    ///
    /// The memory stays where it is, in QEMU, and `k3s-vm status` says paused. To have the memory back as well: k3s-vm
    /// stop --suspend.
    Pause(pause::Args),
    /// Have a paused or suspended machine go on, until the node is Ready
    ///
    /// The guest goes on where it was, is told the time, mixes its random numbers anew, and the command returns when
    /// the node is Ready. A suspended machine goes on as with start. A stopped one has nothing to go on with: that is
    /// for start alone.
    Resume(resume::Args),
    /// Show the machine, its ports and its cluster
    ///
    /// Exit code: 0 running and healthy, 3 stopped or suspended, 4 absent, 5 running and not healthy.
    Status(status::Args),
    /// Remove the machine with all that is in it
    ///
    /// Stops the machine and deletes its disk, snapshots, keys, seed and kubeconfig. The config and the shared cache
    /// stay.
    Reset(reset::Args),
    /// Keep the machine as it is now, or bring it back as it was
    ///
    /// Keeps the whole machine as it is at a moment, its disk and, unless it is stopped, its memory; and brings it back
    /// as it was. Snapshots lie in .k3s-vm/snapshots/ and go with the machine when it is reset.
    Snapshot(snapshot::Args),
    /// Give back to the host what the guest has freed of its disk
    ///
    /// The machine's disk takes what was ever written to it, also what is removed in the guest. This has the guest tell
    /// which blocks it does not use any more, and the host has their room again. An orderly stop does the same on its
    /// way.
    Trim(trim::Args),
    /// Put a newer k3s into the machine, and the machine as it was back if that does not come up
    ///
    /// The release is fetched and verified, the machine is kept as a snapshot, k3s is replaced and started anew; returns
    /// when the node is Ready with it. If it does not become so, the snapshot is put back, and the machine is what it was.
    /// k3s goes up one minor version at a time, and never down.
    Upgrade(upgrade::Args),
    /// Run kubectl on the machine's cluster
    #[command(disable_help_flag = true, disable_version_flag = true, after_help = tool::KUBECTL_HELP)]
    Kubectl(tool::Args),
    /// Run k9s on the machine's cluster
    #[command(disable_help_flag = true, disable_version_flag = true, after_help = tool::K9S_HELP)]
    K9s(tool::Args),
    /// Forward ports of 127.0.0.1 into the guest
    ///
    /// What is added is forwarded at once, and at every later start. Only 127.0.0.1 listens.
    Port(port::Args),
    /// Look at what the host has and lacks
    ///
    /// Exit code: 0 when a machine can be set up, 1 when something is missing for it.
    Doctor(doctor::Args),
    /// Show what all projects share, remove what none needs, or carry it to another host
    ///
    /// All projects share base images, k3s releases, and the disks that a first setup has prepared for the next ones.
    /// Images and releases can be carried to a host without internet.
    Cache(cache::Args),
    /// Load container images into the node, list or remove them
    ///
    /// Images are taken from docker, podman or nerdctl on this host, or from an archive, and go straight into k3s's
    /// containerd. Layers that the node has are not sent again.
    Image(image::Args),
    /// Open a shell in the guest, or run a command there
    ///
    /// As root, with the machine's own key. The exit code is the command's; 128 and the signal's number when a signal
    /// ended it.
    Ssh(ssh::Args),
    /// Print what OpenSSH, scp, rsync and editors need to connect to the guest
    ///
    /// Prints a block for ~/.ssh/config. It holds until the machine is stopped: the next start may have another port.
    SshConfig(ssh_config::Args),
    /// Copy files and folders between this host and the guest
    ///
    /// One side is the guest's, with a `:` before the path; a relative one begins in /root. Folders are copied with all
    /// that is in them, modes, times and links included. In a folder that is there the copy gets the name of the
    /// source; with `/.` behind the source its content goes there. A file is replaced only when the new one is whole.
    Cp(cp::Args),
    /// Show the logs that explain a failed start
    ///
    /// The console and QEMU's own log also of a stopped machine; what the guest's journal has, of a running one.
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
    /// Start the machine with the login session, or no more
    ///
    /// A unit of your own systemd starts the machine when you log in, and stops it when you are logged out (or suspends
    /// it, where .k3s-vm/config says suspend = true). Without a word, it prints on or off.
    Autostart(autostart::Args),
    /// Suspend the machine when nobody uses it
    #[command(name = lifecycle::idle::VERB, hide = true)]
    IdleWatch(idle_watch::Args),
    /// Print the manual, or write its pages
    Man(man::Args),
}

impl Command {
    /// Whether somebody has something to do with the machine, so that it is not one that nobody uses.
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

    /// Whether stdout is for a program that reads what happens, line by line.
    pub(crate) fn prints_events(&self) -> bool {
        match self {
            Self::Setup(args) => args.prints_events(),
            Self::Start(args) => args.prints_events(),
            Self::Upgrade(args) => args.prints_events(),
            _ => false,
        }
    }
}
