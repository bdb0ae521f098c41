//! `port`: forwards ports of the host to the guest.

use std::{fmt::Write, process::ExitCode, str::FromStr};

use crate::{
    base::{Forward, HostPort, forward::ParseForwardError},
    cli::{
        context::{Context, require_machine},
        error::CommandError,
        interrupt,
        terminal::output::Output,
    },
    machine::{
        Machine, MachineError,
        access::ports::{self, Port, Ports, ServicePort},
    },
};

/// The arguments of `port`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm port add 3000:30000      # a NodePort\n  \
    k3s-vm port add 5353:53/udp\n  \
    k3s-vm port add svc/web         # finds the port of the Service\n  \
    k3s-vm port rm 3000\n  \
    k3s-vm port list\n\n\
    When it fails:\n  \
    A port that is in use, or that needs root, is refused, and nothing changes. A start leaves a port out that is in \
    use then, with a warning.")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Forward ports, now and at each start
    Add {
        /// HOST:GUEST, HOST:GUEST/udp, svc/NAME or svc/NAME:PORT
        #[arg(value_name = "PORT", required = true)]
        ports: Vec<Wanted>,
        /// Namespace of the Service
        #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
        namespace: String,
    },
    /// Stop forwarding ports
    Rm {
        /// HOST, or HOST/udp
        #[arg(value_name = "PORT", required = true)]
        ports: Vec<HostPort>,
    },
    /// List the forwarded ports
    List {
        /// Print one JSON document with a "schema" number
        #[arg(long)]
        json: bool,
    },
}

/// A port to forward.
#[derive(Debug, Clone)]
enum Wanted {
    Port(Forward),
    /// The name of a Service, and its port if given.
    Service(String, Option<String>),
}

impl FromStr for Wanted {
    type Err = ParseForwardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let of_name = |it: char| it.is_ascii_alphanumeric() || it == '-' || it == '.';
        let service = ["svc/", "service/", "services/"]
            .iter()
            .find_map(|it| text.strip_prefix(it));
        let Some(service) = service else {
            return text.parse().map(Self::Port);
        };
        let (name, port) = match service.split_once(':') {
            Some((name, port)) => (name, Some(port.to_owned())),
            None => (service, None),
        };
        if name.is_empty() || !name.chars().all(of_name) {
            return Err(ParseForwardError::Forward(text.to_owned()));
        }
        Ok(Self::Service(name.to_owned(), port))
    }
}

pub(crate) async fn run(
    args: Args,
    context: Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    require_machine(&context)?;
    match args.verb {
        Verb::List { json } => {
            let ports = ports::list(&context.project).await?;
            if json {
                output.document(&ports)?;
            } else {
                output.data(&table(&ports));
            }
        }
        Verb::Add { ports, namespace } => add(ports, namespace, context, output).await?,
        Verb::Rm { ports } => remove(ports, context).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn add(
    ports: Vec<Wanted>,
    namespace: String,
    context: Context,
    output: &Output,
) -> Result<(), CommandError> {
    let work = async |machine: &Machine| {
        let mut forwards = Vec::new();
        for wanted in ports {
            forwards.push(match wanted {
                Wanted::Port(forward) => forward,
                Wanted::Service(name, port) => {
                    let namespace = namespace.clone();
                    let service = ServicePort {
                        namespace,
                        name,
                        port,
                    };
                    ports::of_service(&machine.project, &service).await?
                }
            });
        }
        ports::require_all(machine, &forwards).await?;
        for forward in forwards {
            ports::add(machine, forward).await?;
            let (host, guest) = (forward.host, forward.guest);
            tracing::info!("{} forwards to the guest's port {guest}", host.address());
            output.data(&format!("{}\n", host.address()));
        }
        Ok::<(), MachineError>(())
    };
    interrupt::run_on_machine(context, "port add", work).await
}

async fn remove(ports: Vec<HostPort>, context: Context) -> Result<(), CommandError> {
    let work = async |machine: &Machine| {
        ports::require_forwarded(machine, &ports)?;
        for host in ports {
            let removed = ports::remove(machine, host).await?;
            tracing::info!("removed the forward of {removed}");
        }
        Ok::<(), MachineError>(())
    };
    interrupt::run_on_machine(context, "port rm", work).await
}

fn table(ports: &Ports) -> String {
    let mut table = String::new();
    for port in &ports.ports {
        let Port {
            address,
            protocol,
            guest,
            open,
            purpose,
        } = port;
        let guest = format!("{guest}/{}", protocol.name());
        let open = if *open { "open" } else { "closed" };
        let row = format!(
            "{address:<16} {guest:<10} {open:<7} {}",
            purpose.unwrap_or_default()
        );
        let _ = writeln!(table, "{}", row.trim_end());
    }
    table
}
