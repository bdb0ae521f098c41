//! The flags of `k3s server` and the configuration file that holds the same ones. A flag beats the file.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use crate::Failure;

const DEFAULT_CONFIG: &str = "/etc/rancher/k3s/config.yaml";

/// The flags that matter here; they carry the names that the real ones have.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// Load configuration from FILE.
    #[arg(long, short, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Folder to hold state.
    #[arg(long, short)]
    data_dir: Option<PathBuf>,
    /// HTTPS listen port.
    #[arg(long)]
    https_listen_port: Option<u16>,
    /// Write kubeconfig for admin client to this file.
    #[arg(long, short = 'o')]
    write_kubeconfig: Option<PathBuf>,
    /// Write kubeconfig with this mode.
    #[arg(long)]
    write_kubeconfig_mode: Option<String>,
    /// Node name.
    #[arg(long)]
    node_name: Option<String>,
    /// Add additional hostnames or IP addresses to the server's certificate.
    #[arg(long)]
    tls_san: Vec<String>,
    /// Do not deploy packaged components (there are none to deploy).
    #[arg(long)]
    disable: Vec<String>,
}

/// Keys that the stand-in does not need are ignored, for the real k3s has hundreds.
#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct ConfigFile {
    data_dir: Option<PathBuf>,
    https_listen_port: Option<u16>,
    write_kubeconfig: Option<PathBuf>,
    write_kubeconfig_mode: Option<Mode>,
    node_name: Option<String>,
    tls_san: Option<Names>,
}

/// `"0644"` or `0644`: YAML has read the second one as octal already.
#[derive(Deserialize)]
#[serde(untagged)]
enum Mode {
    Number(u32),
    Text(String),
}

/// A list flag may also be given as one value.
#[derive(Deserialize)]
#[serde(untagged)]
enum Names {
    Many(Vec<String>),
    One(String),
}

/// Everything that the server needs, resolved.
pub(crate) struct Config {
    /// Where state is kept.
    pub(crate) data_dir: PathBuf,
    /// The port of the API.
    pub(crate) port: u16,
    /// Where the admin's kubeconfig goes.
    pub(crate) kubeconfig: PathBuf,
    /// The permissions of that file.
    pub(crate) kubeconfig_mode: u32,
    /// The name of the one node.
    pub(crate) node_name: String,
    /// Further names in the server's certificate.
    pub(crate) tls_san: Vec<String>,
}

/// Merges flags, configuration files and k3s's defaults.
pub(crate) fn resolve(args: &ServerArgs) -> Result<Config, Failure> {
    let mut file = ConfigFile::default();
    if args.config.is_empty() && Path::new(DEFAULT_CONFIG).exists() {
        file = read(Path::new(DEFAULT_CONFIG))?;
    }
    for path in &args.config {
        file = read(path)?;
    }
    let _ = &args.disable;
    let mode = match (
        args.write_kubeconfig_mode.as_deref(),
        file.write_kubeconfig_mode,
    ) {
        (Some(text), _) => octal(text)?,
        (None, Some(Mode::Text(text))) => octal(&text)?,
        (None, Some(Mode::Number(number))) => number,
        (None, None) => 0o600,
    };
    let mut tls_san = args.tls_san.clone();
    match file.tls_san {
        Some(Names::Many(names)) => tls_san.extend(names),
        Some(Names::One(name)) => tls_san.push(name),
        None => {}
    }
    let hostname = || {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .unwrap_or_default()
            .trim()
            .to_lowercase()
    };
    Ok(Config {
        data_dir: args
            .data_dir
            .clone()
            .or(file.data_dir)
            .unwrap_or_else(|| "/var/lib/rancher/k3s".into()),
        port: args
            .https_listen_port
            .or(file.https_listen_port)
            .unwrap_or(6443),
        kubeconfig: args
            .write_kubeconfig
            .clone()
            .or(file.write_kubeconfig)
            .unwrap_or_else(|| "/etc/rancher/k3s/k3s.yaml".into()),
        kubeconfig_mode: mode,
        node_name: args
            .node_name
            .clone()
            .or(file.node_name)
            .unwrap_or_else(hostname),
        tls_san,
    })
}

fn octal(text: &str) -> Result<u32, Failure> {
    u32::from_str_radix(text, 8)
        .map_err(|_| format!("invalid write-kubeconfig-mode {text:?}").into())
}

fn read(path: &Path) -> Result<ConfigFile, Failure> {
    let failed =
        |reason: String| format!("failed to load config file {}: {reason}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    // An empty document is null, and null has no options.
    let file: Option<ConfigFile> =
        serde_saphyr::from_str(&text).map_err(|error| failed(error.to_string()))?;
    Ok(file.unwrap_or_default())
}
