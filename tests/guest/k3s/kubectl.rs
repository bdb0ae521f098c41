//! `k3s kubectl`, as far as a person looks at a new cluster with it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::{Certificate, Client, Identity};
use serde_json::Value;

use crate::{Failure, kubeconfig, trailer};

/// kubectl controls the Kubernetes cluster manager.
#[derive(Args)]
pub(crate) struct KubectlArgs {
    /// Path to the kubeconfig file to use.
    #[arg(
        long,
        env = "KUBECONFIG",
        default_value = "/etc/rancher/k3s/k3s.yaml",
        global = true
    )]
    kubeconfig: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Display one or many resources.
    Get(GetArgs),
    /// Print the client and server version information.
    Version {
        /// Show the client's version only.
        #[arg(long)]
        client: bool,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct GetArgs {
    /// The resource: nodes, namespaces, configmaps.
    resource: Option<String>,
    /// Raw URI to request from the server.
    #[arg(long)]
    raw: Option<String>,
}

/// Where it is told to, it leaves what k3s leaves when it unpacks itself (pkg/dataverify and cmd/k3s of k3s): a directory by
/// the umask, and links to it.
fn unpack() {
    let Some(data) = std::env::var_os("K3S_DATA_DIR") else {
        return;
    };
    let data = PathBuf::from(data).join("data");
    let _ = std::fs::create_dir_all(data.join("0a1b2c"));
    let _ = std::os::unix::fs::symlink("0a1b2c", data.join("current"));
}

/// Runs one verb.
#[expect(clippy::print_stderr, reason = "where kubectl says why it failed")]
pub(crate) async fn run(args: KubectlArgs) -> ExitCode {
    unpack();
    match perform(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "what kubectl prints is its purpose")]
async fn perform(args: KubectlArgs) -> Result<(), Failure> {
    match args.verb {
        Verb::Version { client } => {
            println!(
                "Client Version: {}\nKustomize Version: v5.6.0",
                trailer::version()
            );
            if !client {
                let answer: Value = serde_json::from_str(
                    &fetch(&args.kubeconfig, "/version", "application/json").await?,
                )?;
                println!(
                    "Server Version: {}",
                    answer["gitVersion"].as_str().unwrap_or_default()
                );
            }
        }
        Verb::Get(GetArgs {
            raw: Some(path), ..
        }) => print!("{}", fetch(&args.kubeconfig, &path, "*/*").await?),
        Verb::Get(GetArgs { resource, .. }) => {
            let path = match resource.as_deref().unwrap_or_default() {
                "nodes" | "node" | "no" => "/api/v1/nodes",
                "namespaces" | "namespace" | "ns" => "/api/v1/namespaces",
                "configmaps" | "configmap" | "cm" => "/api/v1/namespaces/default/configmaps",
                other => {
                    return Err(format!(
                        "error: the server doesn't have a resource type {other:?}"
                    )
                    .into());
                }
            };
            let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
            print!(
                "{}",
                render(&serde_json::from_str(
                    &fetch(&args.kubeconfig, path, accept).await?
                )?)
            );
        }
    }
    Ok(())
}

async fn fetch(config: &std::path::Path, path: &str, accept: &str) -> Result<String, Failure> {
    let access = kubeconfig::read(config)?;
    let client = Client::builder()
        .tls_certs_only([Certificate::from_pem(&access.ca)?])
        .identity(Identity::from_pem(&access.identity)?)
        .no_proxy()
        .build()?;
    let response = client
        .get(format!("{}{path}", access.server))
        .header("accept", accept)
        .send()
        .await?;
    let status = response.status();
    let body = response.text().await?;
    if status.is_success() {
        Ok(body)
    } else {
        Err(format!("Error from server ({status}): {body}").into())
    }
}

fn render(table: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let columns = list(&table["columnDefinitions"]);
    let shown = |cells: Vec<String>| {
        let plain = cells
            .into_iter()
            .zip(&columns)
            .filter(|(_, column)| column["priority"] == 0);
        plain.map(|(cell, _)| cell).collect::<Vec<_>>()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut lines = vec![shown(
        columns
            .iter()
            .map(|column| text(&column["name"]).to_uppercase())
            .collect(),
    )];
    lines.extend(
        list(&table["rows"])
            .iter()
            .map(|row| shown(list(&row["cells"]).iter().map(text).collect())),
    );
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|at| lines.iter().map(|line| line[at].len()).max().unwrap_or(0) + 3)
        .collect();
    let line = |cells: &Vec<String>| {
        let padded: String = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", padded.trim_end())
    };
    lines.iter().map(line).collect()
}
