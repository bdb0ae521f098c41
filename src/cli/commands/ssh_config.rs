//! `ssh-config`: a configuration for OpenSSH, for editors, scp and rsync.

use std::process::ExitCode;

use crate::{
    cli::{context::Context, error::CommandError, global::MachineFlag, terminal::output::Output},
    machine::access,
};

/// The arguments of `ssh-config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    k3s-vm ssh-config --name shop >~/.ssh/shop.config\n  \
    ssh -F ~/.ssh/shop.config shop\n  \
    rsync -e 'ssh -F ~/.ssh/shop.config' -a src/ shop:/srv/src/\n  \
    scp -F ~/.ssh/shop.config shop:/etc/hosts .\n\n\
    When it fails:\n  \
    The VM must be running: k3s-vm start. If OpenSSH refuses the host key, another program has the port now: print the \
    configuration again.")]
pub struct Args {
    /// Name of the host in the configuration [default: the VM's name]
    #[arg(long, value_name = "HOST", value_parser = host)]
    name: Option<String>,
    #[command(flatten)]
    _machine: MachineFlag,
}

pub(crate) async fn run(
    args: &Args,
    context: &Context,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let block = access::ssh_config::ssh_config(&context.project, args.name.as_deref()).await?;
    output.data(&block);
    Ok(ExitCode::SUCCESS)
}

/// One word that is neither a pattern of ssh_config(5) nor an option.
fn host(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(
            "a host's name takes A-Z, a-z, 0-9, . _ and -, and begins with none of the latter"
                .to_owned(),
        )
    }
}
