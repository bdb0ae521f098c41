//! What a machine is to be: the choices of flags and config, completed and checked. No file, no clock, no environment.

use std::{path::PathBuf, time::Duration};

use crate::{
    base::{Digest, Size},
    cluster::release::{Mirror, Version},
    image::ImageSource,
    machine::MachineError,
    project::{
        Config, Project, Record,
        config::{AccelChoice, FirmwareChoice},
    },
};

/// A resolved wish: nothing is left open but what only the host can tell.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Virtual CPUs.
    pub cpus: u8,
    /// The guest's memory.
    pub memory: Size,
    /// The disk's size.
    pub disk: Size,
    /// The base image, as the user named it.
    pub image: String,
    /// The base image.
    pub image_source: ImageSource,
    /// The SHA-256 that it must have, if the user gave one.
    pub image_sha256: Option<Digest>,
    /// The k3s release; `None` is the stable channel's.
    pub k3s_version: Option<Version>,
    /// Where releases come from.
    pub mirror: Mirror,
    /// The API's host port, if the user chose one.
    pub api_port: Option<u16>,
    /// How instructions are run.
    pub accel: AccelChoice,
    /// How the guest boots.
    pub firmware: FirmwareChoice,
    /// Where the kubeconfig goes (absolute).
    pub kubeconfig: PathBuf,
    /// How long the whole may take, if the user said so.
    pub timeout: Option<Duration>,
}

const DEFAULT_CPUS: u8 = 2;
const DEFAULT_MEMORY: Size = Size::gib(4);
const DEFAULT_DISK: Size = Size::gib(20);
/// k3s's documented minimum for a server is 2 GB; below half of that not even its images fit.
const LEAST_MEMORY: Size = Size::gib(1);
/// Image, k3s and its images take about 3 GiB.
const LEAST_DISK: Size = Size::gib(4);

impl Spec {
    /// Completes `config` with the defaults.
    ///
    /// # Errors
    ///
    /// [`MachineError::Choice`] for values that cannot be.
    pub fn resolve(config: &Config, project: &Project) -> Result<Self, MachineError> {
        let choice = |error: &dyn std::fmt::Display| MachineError::Choice(error.to_string());
        let image_source = match config.image.as_deref() {
            None => ImageSource::builtin_default()?,
            // A path in the config is relative to the project.
            Some(path) if path.contains('/') && !path.contains(':') => {
                project.root().join(path).to_string_lossy().parse()?
            }
            Some(image) => image.parse()?,
        };
        let k3s_version = match config.k3s_version.as_deref() {
            None | Some("stable") => None,
            Some(version) => Some(version.parse::<Version>().map_err(|error| choice(&error))?),
        };
        let mirror = match config.k3s_mirror.as_deref() {
            None => Mirror::default(),
            Some(url) => url.parse::<Mirror>().map_err(|error| choice(&error))?,
        };
        let spec = Self {
            cpus: config.cpus.unwrap_or(DEFAULT_CPUS),
            memory: at_least(
                "memory",
                config.memory.unwrap_or(DEFAULT_MEMORY),
                LEAST_MEMORY,
            )?,
            disk: at_least("a disk", config.disk.unwrap_or(DEFAULT_DISK), LEAST_DISK)?,
            image: image_source.to_string(),
            image_source,
            image_sha256: config.image_sha256,
            k3s_version,
            mirror,
            api_port: config.api_port,
            accel: config.accel.unwrap_or_default(),
            firmware: config.firmware.unwrap_or_default(),
            kubeconfig: match &config.kubeconfig {
                Some(path) => project.root().join(path),
                None => project.default_kubeconfig(),
            },
            timeout: config.timeout.map(|timeout| timeout.0),
        };
        Ok(spec)
    }

    /// The config with the sizes that were decided, for a person to see and to change.
    pub fn completed(&self, config: Config) -> Config {
        Config {
            cpus: Some(self.cpus),
            memory: Some(self.memory),
            disk: Some(self.disk),
            ..config
        }
    }

    /// Whether the machine of `record` is what is wished for, as far as a machine cannot change.
    ///
    /// # Errors
    ///
    /// [`MachineError::Contradiction`] names the first difference.
    pub fn agrees_with(&self, record: &Record) -> Result<(), MachineError> {
        let contradiction = |what, made: &dyn ToString, asked: &dyn ToString| {
            Err(MachineError::Contradiction {
                what,
                made: made.to_string(),
                asked: asked.to_string(),
            })
        };
        if self.disk != record.disk {
            return contradiction("a disk of", &record.disk, &self.disk);
        }
        if self.image != record.image.source {
            return contradiction("the image", &record.image.source, &self.image);
        }
        if self
            .image_sha256
            .is_some_and(|digest| digest != record.image.digest)
        {
            return contradiction(
                "an image whose SHA-256 is",
                &record.image.digest,
                &self.image_sha256.map_or_else(String::new, String::from),
            );
        }
        match &self.k3s_version {
            Some(version) if version.to_string() != record.release.version => {
                return contradiction("k3s", &record.release.version, version);
            }
            _ => {}
        }
        if self.firmware != FirmwareChoice::Auto && self.firmware.name() != record.firmware {
            return contradiction("firmware", &record.firmware, &self.firmware.name());
        }
        Ok(())
    }
}

fn at_least(what: &str, size: Size, least: Size) -> Result<Size, MachineError> {
    if size < least {
        return Err(MachineError::Choice(format!(
            "{what} of {size} is too small: {least} is the least for a k3s node"
        )));
    }
    if !size.as_bytes().is_multiple_of(1 << 20) {
        return Err(MachineError::Choice(format!(
            "{what} of {size} is not a whole number of MiB"
        )));
    }
    Ok(size)
}
