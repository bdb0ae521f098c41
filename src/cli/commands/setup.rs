//! `setup`: creates the VM and returns when the node is Ready.

use std::{process::ExitCode, time::Duration};

use crate::{
    base::{Digest, Forward, proxy},
    cli::{
        choices::{Choices, heading},
        context::Context,
        error::CommandError,
        hints, interrupt,
        terminal::{events::Event, output::Output},
    },
    image::ImageSource,
    machine::{
        Machine, MachineError, Timings,
        lifecycle::{self, setup::Summary},
        model::{spec::image_name, timings::TimeSpentIn},
    },
    project::{Config, Project, config_values::FirmwareChoice, user},
    qemu::version,
};

/// The arguments of `setup`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm setup\n  \
    k3s-vm setup --cpus 4 --memory 8GiB --disk 40GiB\n  \
    k3s-vm setup --image debian-13 --k3s-version v1.33.5+k3s1\n  \
    export KUBECONFIG=\"$(k3s-vm setup -q)\"\n  \
    k3s-vm setup --json -q | jq -r 'select(.event == \"done\").server'\n\n\
    When it fails:\n  \
    Run it again: it continues where it stopped. `k3s-vm doctor` checks the host, `k3s-vm logs console` and \
    `k3s-vm logs k3s` show the guest. To start over: k3s-vm reset && k3s-vm setup")]
pub struct Args {
    #[command(flatten)]
    choices: Choices,
    /// Base image: debian-13, debian-12, ubuntu-26.04, ubuntu-24.04, ubuntu-22.04, a path or a URL [default: debian-13]
    #[arg(long, value_name = "ALIAS|PATH|URL", help_heading = heading::VM)]
    image: Option<String>,
    /// Expected SHA-256 of the image
    #[arg(long, value_name = "HEX", requires = "image", help_heading = heading::VM, hide_short_help = true)]
    image_sha256: Option<Digest>,
    /// Copy a template of yours, keys and certificates included: ready within seconds, after the first one
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        help_heading = heading::VM, hide_short_help = true)]
    share_identity: Option<bool>,
    /// Firmware: auto, bios or uefi [default: auto]
    #[arg(long, value_name = "KIND", help_heading = heading::VM, hide_short_help = true)]
    firmware: Option<FirmwareChoice>,
    /// k3s release, e.g. v1.33.5+k3s1 [default: the stable channel]
    #[arg(long, value_name = "VERSION", help_heading = heading::K3S)]
    k3s_version: Option<String>,
    /// Source of k3s releases: http, https or file [default: GitHub]
    #[arg(
        long,
        value_name = "URL",
        env = "K3S_VM_K3S_MIRROR",
        hide_env_values = true,
        help_heading = heading::K3S,
        hide_short_help = true
    )]
    k3s_mirror: Option<String>,
    /// Forward a port of 127.0.0.1 to the guest, e.g. 8080:80 or 5353:53/udp (repeatable) [default: 8080:80 and 8443:443,
    /// if they are free]
    #[arg(long, short, value_name = "HOST:GUEST", help_heading = heading::ACCESS)]
    port: Vec<Forward>,
    /// Install QEMU with the system's package manager if it is missing
    #[arg(long)]
    install_missing: bool,
    /// Download an image or a k3s release without a checksum, in this run
    #[arg(long, hide_short_help = true)]
    insecure_no_checksum: bool,
    /// Print where the time went
    #[arg(long, hide_short_help = true)]
    timings: bool,
    /// Print events on stdout, one JSON document a line
    #[arg(long, hide_short_help = true)]
    json: bool,
}

impl Args {
    pub(crate) const fn prints_events(&self) -> bool {
        self.json
    }

    fn into_config(self, project: &Project) -> Result<Config, CommandError> {
        // Not a matter for clap, which repeats a wrong value with the password that a URL may have.
        let image: Option<ImageSource> = self
            .image
            .map(|image| image.parse())
            .transpose()
            .map_err(MachineError::from)?;
        Ok(Config {
            image: image.map(|image| image_name(&image, project)),
            image_sha256: self.image_sha256,
            insecure_no_checksum: self.insecure_no_checksum,
            k3s_version: self.k3s_version,
            k3s_mirror: self.k3s_mirror,
            firmware: self.firmware,
            ports: (!self.port.is_empty()).then_some(self.port),
            share_identity: self.share_identity,
            ..self.choices.into_config(project)?
        })
    }
}

pub(crate) async fn run(
    args: Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    if args.install_missing && version::find_program(version::PROGRAM).is_none() {
        install_qemu(output)?;
    }
    let show_timings = args.timings;
    let mut config = args.into_config(&context.project)?;
    if !context.project.record().exists() {
        inherit_proxies(
            &mut config,
            &Config::load(&context.project.config())
                .and_then(|file| Ok(file.over(user::config(false)?)))
                .map_err(MachineError::from)?,
        );
    }
    let progress = output.progress();
    let work = async |machine: &Machine| lifecycle::setup::setup(machine, config, &progress).await;
    let summary = interrupt::run_on_machine(context, "setup", work).await?;
    print_summary(&summary, show_timings, output);
    Ok(ExitCode::SUCCESS)
}

/// A new VM uses the proxy of the environment where neither flags nor a config set one.
fn inherit_proxies(flags: &mut Config, file: &Config) {
    let chosen = |it: &Config| it.network.http_proxy.is_some() || it.network.https_proxy.is_some();
    if chosen(flags) || chosen(file) {
        return;
    }
    let of = |scheme: &str| {
        let proxy = proxy::of_environment(scheme)?;
        let proxy = proxy
            .inspect_err(|error| tracing::warn!("the guest has no proxy for {scheme}: {error}"));
        proxy.ok()
    };
    let network = &mut flags.network;
    network.http_proxy = of("http");
    network.https_proxy = of("https");
    if (&network.http_proxy, &network.https_proxy) != (&None, &None) {
        tracing::info!("the guest uses the proxies of the environment");
        network.no_proxy = network
            .no_proxy
            .take()
            .or_else(proxy::direct_of_environment);
    }
}

/// Prints the end of setup and start: the next step on stderr, the kubeconfig's path or the last event on stdout.
pub(crate) fn print_summary(summary: &Summary, show_timings: bool, output: &Output) {
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
        print_timings(&summary.timings, output);
    }
    if output.prints_events() {
        output.event(&Event::done(summary));
    } else {
        output.data(&format!("{}\n", record.kubeconfig.display()));
    }
}

fn print_timings(timings: &Timings, output: &Output) {
    let print = |took: Duration, what: &str| {
        output.line(&format!("{:>9.3} s  {what}", took.as_secs_f64()));
    };
    for phase in timings.phases() {
        let category = match phase.category {
            TimeSpentIn::Own => "",
            TimeSpentIn::Network => "  (network)",
            TimeSpentIn::Guest => "  (guest)",
        };
        print(phase.took, &format!("{}{category}", phase.name));
    }
    print(timings.total(), "in all");
    print(timings.own(), "of it k3s-vm's own");
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
