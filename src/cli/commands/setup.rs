//! `setup`: from nothing to a node that is Ready.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    base::{Digest, Forward, Size},
    cli::{
        context::Context,
        error::{CommandError, code},
        events::Event,
        hints, interrupt,
        output::Output,
    },
    image::ImageSource,
    machine::{self, MachineError, setup::Summary, spec::image_name, timings::Whose},
    project::{
        Config, Project,
        config::{AccelChoice, FirmwareChoice, MOST_CPUS, Timeout},
    },
    qemu::version,
};

/// Flags are saved to .k3s-vm/config and hold for every later start.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm setup\n  \
    k3s-vm setup --cpus 4 --memory 8GiB --disk 40GiB\n  \
    k3s-vm setup --image debian-13 --k3s-version v1.33.5+k3s1\n  \
    export KUBECONFIG=\"$(k3s-vm setup -q)\"\n  \
    k3s-vm setup --json -q | jq -r 'select(.event == \"done\").server'\n\n\
    When it fails:\n  \
    Run it again; it goes on where it stopped. `k3s-vm doctor` looks at the host,\n  \
    `k3s-vm logs console` and `k3s-vm logs k3s` at the guest.\n  \
    To begin anew: k3s-vm reset && k3s-vm setup")]
#[command(next_help_heading = "Options")]
pub struct Args {
    /// Virtual CPUs [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_CPUS)))]
    cpus: Option<u8>,
    /// The guest's memory, like 4GiB [default: 4GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// The disk's size; it takes only what is written to it [default: 20GiB]
    #[arg(long, value_name = "SIZE")]
    disk: Option<Size>,
    /// The base image: an alias (ubuntu-26.04, ubuntu-24.04, ubuntu-22.04, debian-13, debian-12), a path or a URL
    /// [default: ubuntu-26.04]
    #[arg(long, value_name = "ALIAS|PATH|URL")]
    image: Option<String>,
    /// The SHA-256 that the image must have
    #[arg(long, value_name = "HEX", requires = "image")]
    image_sha256: Option<Digest>,
    /// Fetch also an image or a k3s release that has no checksum; holds for this run only
    #[arg(long)]
    insecure_no_checksum: bool,
    /// The k3s release, like v1.33.5+k3s1 [default: what the stable channel names]
    #[arg(long, value_name = "V")]
    k3s_version: Option<String>,
    /// Where k3s releases come from (http, https or file) [default: k3s's releases on GitHub]
    #[arg(
        long,
        value_name = "URL",
        env = "K3S_VM_K3S_MIRROR",
        hide_env_values = true
    )]
    k3s_mirror: Option<String>,
    /// The API's port on 127.0.0.1 [default: 6443 or a free one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    api_port: Option<u16>,
    /// Forward a port of 127.0.0.1 into the guest, like 8080:80 or 5353:53/udp; may be said more than once [default:
    /// 8080:80 and 8443:443, where they are free]
    #[arg(long, short, value_name = "HOST:GUEST")]
    port: Vec<Forward>,
    /// How the guest runs: auto, kvm or tcg (emulation) [default: auto]
    #[arg(long, value_name = "HOW")]
    accel: Option<AccelChoice>,
    /// The processor's model, one of `qemu-system-x86_64 -cpu help`, with features like Westmere,enforce: saved memory is
    /// of use on all hosts of one vendor that have it [default: all that the host's processor can do]
    #[arg(long, value_name = "MODEL")]
    cpu_model: Option<String>,
    /// Be a copy of one machine of yours that is kept for this, keys and certificates included: a ready cluster within
    /// seconds, except for the first time
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    share_identity: Option<bool>,
    /// How the guest boots: auto, bios or uefi [default: auto]
    #[arg(long, value_name = "HOW")]
    firmware: Option<FirmwareChoice>,
    /// Where to write the kubeconfig [default: web/.kube/config or .kube/config of the project]
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// How long the start may take, like 5m [default: 5m with KVM, 30m without]
    #[arg(long, value_name = "DUR")]
    timeout: Option<Timeout>,
    /// Keep the guest from the network and from the host; false undoes it. Without it, pods can pull images from the
    /// internet, and the guest reaches what listens on this host's loopback, too (as 10.0.2.2)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    isolated: Option<bool>,
    /// Install a missing QEMU with the system's package manager
    #[arg(long)]
    install_missing: bool,
    /// Show where the time went
    #[arg(long)]
    timings: bool,
    /// Print what happens on stdout, one JSON document a line; their layout is numbered by "schema"
    #[arg(long)]
    json: bool,
}

impl Args {
    pub(in crate::cli) const fn tells_events(&self) -> bool {
        self.json
    }

    /// What is of the project is saved relative to it, so that it holds where the project is moved to.
    fn into_config(self, project: &Project) -> Result<Config, CommandError> {
        let absolute = |path: PathBuf| {
            if path.to_str().is_none() {
                let what = format!("{path:?} is no place for a kubeconfig: it is not UTF-8");
                return Err(CommandError::new(what).with_code(code::USAGE));
            }
            std::path::absolute(&path)
                .map(|path| project.relative(&path).to_owned())
                .map_err(|error| {
                    CommandError::new(format!("{} is no place for a kubeconfig", path.display()))
                        .because(&error)
                })
        };
        // Not a matter for clap, which repeats a wrong value with the password that a URL may have.
        let image: Option<ImageSource> = self
            .image
            .map(|image| image.parse())
            .transpose()
            .map_err(MachineError::from)?;
        Ok(Config {
            cpus: self.cpus,
            memory: self.memory,
            disk: self.disk,
            image: image.map(|image| image_name(&image, project)),
            image_sha256: self.image_sha256,
            insecure_no_checksum: self.insecure_no_checksum,
            k3s_version: self.k3s_version,
            k3s_mirror: self.k3s_mirror,
            api_port: self.api_port,
            accel: self.accel,
            cpu_model: self.cpu_model,
            firmware: self.firmware,
            kubeconfig: self.kubeconfig.map(absolute).transpose()?,
            timeout: self.timeout,
            ports: (!self.port.is_empty()).then_some(self.port),
            isolated: self.isolated,
            suspend: None,
            share_identity: self.share_identity,
        })
    }
}

pub(super) async fn run(
    args: Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    if args.install_missing && version::find_program(version::PROGRAM).is_none() {
        install_qemu(output)?;
    }
    let show_timings = args.timings;
    let config = args.into_config(&context.project)?;
    let (machine, signals) = interrupt::opened(context, "setup").await?;
    let progress = output.progress();
    let work = async { Ok(machine::setup::setup(&machine, config, &progress).await?) };
    let summary = interrupt::guarded(&machine, signals, work).await?;
    tell(&summary, show_timings, output);
    Ok(ExitCode::SUCCESS)
}

/// The end of setup and start: what to do next on stderr, the kubeconfig's path or the last event on stdout.
pub(super) fn tell(summary: &Summary, show_timings: bool, output: &Output) {
    let record = &summary.record;
    if summary.nothing_to_do {
        tracing::info!("{} is running and healthy; nothing to do", record.name);
    } else {
        let seconds = summary.timings.total().as_secs_f64();
        tracing::info!(
            "{} is ready on https://127.0.0.1:{} after {seconds:.1} s",
            record.name,
            record.api_port
        );
        tracing::info!("try: k3s-vm kubectl get nodes");
    }
    if show_timings {
        for phase in summary.timings.phases() {
            let whose = match phase.whose {
                Whose::Own => "",
                Whose::Network => "  (network)",
                Whose::Guest => "  (guest)",
            };
            output.line(&format!(
                "{:>9.3} s  {}{whose}",
                phase.took.as_secs_f64(),
                phase.name
            ));
        }
        output.line(&format!(
            "{:>9.3} s  in all",
            summary.timings.total().as_secs_f64()
        ));
        output.line(&format!(
            "{:>9.3} s  of it k3s-vm's own",
            summary.timings.own().as_secs_f64()
        ));
    }
    if output.tells_events() {
        output.event(&Event::done(summary));
    } else {
        output.data(&format!("{}\n", record.kubeconfig.display()));
    }
}

fn install_qemu(output: &Output) -> Result<(), CommandError> {
    let Some(distribution) =
        hints::this_distribution().filter(|&index| hints::DISTRIBUTIONS[index] != "NixOS")
    else {
        let error = CommandError::new(
            "QEMU is missing, and this system's package manager is not one that k3s-vm can drive",
        );
        return Err(hints::for_this_host(&hints::INSTALL_QEMU)
            .into_iter()
            .fold(error, CommandError::hint));
    };
    let mut command = hints::INSTALL_QEMU[distribution].to_owned();
    if nix::unistd::getuid().is_root() {
        command = command.replace("sudo ", "");
    }
    output.step(&command);
    output.event(&Event::Stage { message: &command });
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("umask 022; {command}")])
        .stdout(std::io::stderr())
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(
            CommandError::new(format!("{command:?} ended with {status}"))
                .hint("run it by hand and see what it says"),
        ),
        Err(error) => Err(CommandError::new("cannot run sh").because(&error)),
    }
}
