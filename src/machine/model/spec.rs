//! The specification of a VM: the choices of flags and config, completed and checked. No file, no clock, no environment.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    base::{Digest, Forward, HostAccess, Mount, Protocol, Size, forward},
    image::ImageSource,
    k3s::release::{Mirror, Version},
    machine::MachineError,
    project::{
        Config, Project, Record,
        config_values::{AccelChoice, FirmwareChoice},
        settings::{K3s, Network},
    },
};

/// The resolved choices of a VM.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Virtual CPUs.
    pub cpus: u8,
    /// The guest's memory.
    pub memory: Size,
    /// The disk's size.
    pub disk: Size,
    /// The base image, as the user named it, for messages.
    pub image: String,
    /// The base image.
    pub image_source: ImageSource,
    /// The expected SHA-256, if the user gave one.
    pub image_sha256: Option<Digest>,
    /// Downloads need no checksum.
    pub insecure_no_checksum: bool,
    /// The k3s release; `None` is the stable channel's.
    pub k3s_version: Option<Version>,
    /// The source of releases.
    pub mirror: Mirror,
    /// The API's host port, if the user chose one.
    pub api_port: Option<u16>,
    /// The accelerator.
    pub accel: AccelChoice,
    /// The CPU model, if the user chose one.
    pub cpu_model: Option<String>,
    /// The firmware.
    pub firmware: FirmwareChoice,
    /// The kubeconfig's absolute path.
    pub kubeconfig: PathBuf,
    /// The limit of a start, if the user chose one.
    pub timeout: Option<Duration>,
    /// The host's ports that lead into the guest, if the user chose some.
    pub ports: Option<Vec<Forward>>,
    /// The mounts.
    pub mounts: Vec<Mount>,
    /// The time without use after which the VM is suspended.
    pub idle_suspend: Option<Duration>,
    /// The guest has no network and no way to the host.
    pub isolated: bool,
    /// The ports of the host's loopback that the guest may reach.
    pub host_access: HostAccess,
    /// A new VM copies a template with its identity.
    pub share_identity: bool,
    /// The settings of k3s.
    pub k3s: K3s,
    /// The settings of the guest's network.
    pub network: Network,
    /// The guest restores the copy of its datastore: for one start, never in the config.
    pub restore_datastore: bool,
}

const DEFAULT_CPUS: u8 = 2;

const DEFAULT_MEMORY: Size = Size::gib(4);

const DEFAULT_DISK: Size = Size::gib(20);

/// k3s's documented minimum for a server is 2 GB; below half of that not even its images fit.
const LEAST_MEMORY: Size = Size::gib(1);

/// Image, k3s and its images take about 3 GiB.
const LEAST_DISK: Size = Size::gib(4);

impl Spec {
    /// Completes `config` with the values of the existing VM, and with defaults.
    ///
    /// # Errors
    ///
    /// [`MachineError::Choice`] for values that cannot be.
    pub fn resolve(
        config: &Config,
        made: Option<&Record>,
        project: &Project,
    ) -> Result<Self, MachineError> {
        let made = made.map(|record| Config {
            disk: Some(record.disk),
            image: Some(record.image.source.clone()),
            // The path was chosen when the VM was created; a `web/` directory that was created later does not move it.
            kubeconfig: Some(record.kubeconfig.clone()),
            ..Config::default()
        });
        let config = &config.clone().over(made.unwrap_or_default());
        let image_source = image_source(config, project)?;
        let k3s_version = match config.k3s_version.as_deref() {
            None | Some("stable") => None,
            Some(version) => Some(version.parse::<Version>().map_err(choice)?),
        };
        let mirror = match config.k3s_mirror.as_deref() {
            None => Mirror::default(),
            Some(url) => url.parse::<Mirror>().map_err(choice)?,
        };
        require_api_port_unforwarded(config)?;
        require_ports_forwarded_once(config)?;
        require_dns_beyond_guest(config)?;
        Ok(Self {
            cpus: config.cpus.unwrap_or(DEFAULT_CPUS),
            memory: at_least(
                "memory",
                config.memory.unwrap_or(DEFAULT_MEMORY),
                LEAST_MEMORY,
            )?,
            disk: at_least("a disk", config.disk.unwrap_or(DEFAULT_DISK), LEAST_DISK)?,
            image: shown_name(&image_source, project),
            image_source,
            image_sha256: config.image_sha256,
            insecure_no_checksum: config.insecure_no_checksum,
            k3s_version,
            mirror,
            api_port: config.api_port,
            accel: config.accel.unwrap_or_default(),
            cpu_model: config.cpu_model.clone().map(cpu_model).transpose()?,
            firmware: config.firmware.unwrap_or_default(),
            kubeconfig: match &config.kubeconfig {
                Some(path) => project.resolve(path),
                None => project.default_kubeconfig(),
            },
            timeout: config.timeout.map(|timeout| timeout.0),
            ports: config.ports.clone(),
            mounts: config.mounts.clone().unwrap_or_default(),
            idle_suspend: config.idle_suspend.and_then(|it| it.0),
            isolated: config.isolated.unwrap_or_default(),
            host_access: config.host_access.clone().unwrap_or_default(),
            share_identity: config.share_identity.unwrap_or_default(),
            k3s: config.k3s.clone(),
            network: config.network.clone(),
            restore_datastore: false,
        })
    }

    /// The config with the chosen sizes, for a person to read and change.
    pub fn completed(&self, config: Config) -> Config {
        Config {
            cpus: Some(self.cpus),
            memory: Some(self.memory),
            disk: Some(self.disk),
            ..config
        }
    }

    /// Returns `true` when k3s, the network or mounts are configured.
    pub(crate) fn has_settings(&self) -> bool {
        !self.mounts.is_empty()
            || (&self.k3s, &self.network) != (&K3s::default(), &Network::default())
    }

    /// Checks the choices that a VM cannot change against `record`.
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
        // A disk grows at a start, and never shrinks.
        if self.disk < record.disk || (self.disk != record.disk && !record.provisioned) {
            return contradiction("the disk size", &record.disk, &self.disk);
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
                &self
                    .image_sha256
                    .map_or_else(String::new, |digest| digest.to_string()),
            );
        }
        match &self.k3s_version {
            Some(version) if version.to_string() != record.release.version => {
                return contradiction("k3s", &record.release.version, version);
            }
            _ => {}
        }
        if self.firmware != FirmwareChoice::Auto && self.firmware.name() != record.firmware {
            return contradiction("the firmware", &record.firmware, &self.firmware.name());
        }
        Ok(())
    }
}

/// The image's name in config and record: relative for a file of the project, which may be moved.
pub fn image_name(source: &ImageSource, project: &Project) -> String {
    match source {
        ImageSource::Path(path) if path.starts_with(project.root()) => {
            format!("./{}", project.relative(path).display())
        }
        _ => source.to_string(),
    }
}

/// The image's name in messages, records and logs, without a password in a URL.
fn shown_name(source: &ImageSource, project: &Project) -> String {
    match source {
        ImageSource::Path(_) => image_name(source, project),
        _ => source.shown(),
    }
}

fn choice(error: impl std::fmt::Display) -> MachineError {
    MachineError::Choice(error.to_string())
}

/// The base image of the config. A path in it is relative to the project.
fn image_source(config: &Config, project: &Project) -> Result<ImageSource, MachineError> {
    let Some(image) = config.image.as_deref() else {
        return Ok(ImageSource::builtin_default()?);
    };
    let is_path = image.contains('/') && !image.contains("://") && !image.starts_with("file:");
    Ok(if is_path {
        let path = project.resolve(Path::new(image));
        path.to_string_lossy().parse()?
    } else {
        image.parse()?
    })
}

fn require_api_port_unforwarded(config: &Config) -> Result<(), MachineError> {
    let is_api =
        |it: &&Forward| it.host.protocol == Protocol::Tcp && Some(it.host.port) == config.api_port;
    match config.ports.iter().flatten().find(is_api) {
        None => Ok(()),
        Some(forward) => Err(choice(format_args!(
            "port {} of the API is forwarded by {forward}",
            forward.host.port
        ))),
    }
}

/// A config that forwards a port twice cannot be read, so flags must not write one.
fn require_ports_forwarded_once(config: &Config) -> Result<(), MachineError> {
    match forward::twice(config.ports.as_deref().unwrap_or_default()) {
        None => Ok(()),
        Some(twice) => Err(choice(format_args!(
            "port {} is forwarded twice",
            twice.host
        ))),
    }
}

/// Requires DNS servers outside the guest: on its loopback, the guest would query itself.
fn require_dns_beyond_guest(config: &Config) -> Result<(), MachineError> {
    let is_unusable = |it: &&IpAddr| it.is_loopback() || it.is_unspecified() || it.is_multicast();
    match config.network.dns.iter().flatten().find(is_unusable) {
        None => Ok(()),
        Some(address) => Err(choice(format_args!(
            "invalid DNS server {address}: expected an address that the guest reaches; \
             10.0.2.2 is this host, and 10.0.2.3 asks its DNS server"
        ))),
    }
}

/// Checks the form of a CPU model. QEMU decides whether it knows it.
fn cpu_model(model: String) -> Result<String, MachineError> {
    let fits = |it: char| it.is_ascii_alphanumeric() || "-_.,=+".contains(it);
    if model.starts_with(|it: char| it.is_ascii_alphanumeric()) && model.chars().all(fits) {
        return Ok(model);
    }
    let what = format!("unknown CPU model {model:?}; to list them: qemu-system-x86_64 -cpu help");
    Err(MachineError::Choice(what))
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        base::Digest,
        project::record::{BaseImage, Release},
    };

    fn resolve(config: &Config) -> Result<Spec, MachineError> {
        Spec::resolve(config, None, &Project::at(Path::new("/p/shop")))
    }

    fn record() -> Record {
        Record {
            schema: Record::schema(),
            name: "k3s-shop-1a2b3c".parse().expect("sound"),
            uuid: "u".into(),
            disk: Size::gib(20),
            image: BaseImage {
                source: "debian-13".into(),
                path: "/c/images/a.img".into(),
                digest: Digest::of(b"image"),
            },
            release: Release {
                version: "v1.33.5+k3s1".into(),
                binary: "/c/k3s".into(),
                airgap: None,
            },
            first_release: None,
            firmware: "bios".into(),
            api_port: 6443,
            ssh_port: None,
            kubeconfig: "/p/shop/.kube/config".into(),
            provisioned: true,
        }
    }

    #[test]
    fn open_choices_get_defaults() {
        let spec = resolve(&Config::default()).expect("sound");
        assert_eq!(
            (spec.cpus, spec.memory, spec.disk),
            (2, Size::gib(4), Size::gib(20))
        );
        assert_eq!(spec.image, "debian-13");
        assert_eq!(spec.k3s_version, None);
        assert_eq!(spec.kubeconfig, Path::new("/p/shop/.kube/config"));
        assert!(spec.agrees_with(&record()).is_ok());
    }

    #[test]
    fn a_port_is_forwarded_once() {
        let with = |ports: &[&str]| Config {
            ports: Some(ports.iter().map(|it| it.parse().expect("sound")).collect()),
            ..Config::default()
        };
        let error = resolve(&with(&["81:80", "81:81"])).expect_err("twice");
        assert_eq!(error.to_string(), "port 81 is forwarded twice");
        resolve(&with(&["81:80", "81:80/udp", "82:80"])).expect("three ports");
    }

    #[test]
    fn a_dns_server_is_not_the_guest_itself() {
        let with = |address: &str| {
            let mut config = Config::default();
            config.network.dns = Some(vec![address.parse().expect("an address")]);
            resolve(&config)
        };
        for wrong in [
            "127.0.0.1",
            "127.0.0.53",
            "0.0.0.0",
            "::1",
            "::",
            "224.0.0.251",
        ] {
            let error = with(wrong).expect_err(wrong).to_string();
            assert!(
                error.contains(wrong) && error.contains("10.0.2.3"),
                "{error}"
            );
        }
        for sound in ["10.0.2.2", "192.0.2.53", "2001:db8::53", "fec0::3"] {
            with(sound).expect(sound);
        }
    }

    #[test]
    fn a_directory_made_later_does_not_move_the_kubeconfig() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let project = Project::at(temporary.path());
        let place = project.default_kubeconfig();
        let made = Record {
            kubeconfig: place.clone(),
            ..record()
        };
        std::fs::create_dir(temporary.path().join("web")).expect("created");
        assert_ne!(project.default_kubeconfig(), place);
        let spec = Spec::resolve(&Config::default(), Some(&made), &project).expect("sound");
        assert_eq!(spec.kubeconfig, place);
        let chosen = Config {
            kubeconfig: Some("other".into()),
            ..Config::default()
        };
        let spec = Spec::resolve(&chosen, Some(&made), &project).expect("sound");
        assert_eq!(spec.kubeconfig, temporary.path().join("other"));
    }

    #[test]
    fn invalid_choices_are_rejected() {
        let config = Config::default;
        for (wrong, word) in [
            (
                Config {
                    memory: Some(Size::mib(512)),
                    ..config()
                },
                "too small",
            ),
            (
                Config {
                    disk: Some(Size::gib(1)),
                    ..config()
                },
                "too small",
            ),
            (
                Config {
                    memory: Some(Size::bytes((2 << 30) + 1)),
                    ..config()
                },
                "whole number",
            ),
            (
                Config {
                    k3s_version: Some("newest".into()),
                    ..config()
                },
                "newest",
            ),
            (
                Config {
                    k3s_mirror: Some("ftp://x".into()),
                    ..config()
                },
                "ftp",
            ),
            (
                Config {
                    image: Some("windows".into()),
                    ..config()
                },
                "windows",
            ),
        ] {
            let message = resolve(&wrong).expect_err(word).to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn fixed_choices_cannot_change() {
        let config = Config::default;
        for (other, what) in [
            (
                Config {
                    disk: Some(Size::gib(10)),
                    ..config()
                },
                "the disk size from 20GiB",
            ),
            (
                Config {
                    image: Some("debian-12".into()),
                    ..config()
                },
                "the image from debian-13",
            ),
            (
                Config {
                    image_sha256: Some(Digest::of(b"other")),
                    ..config()
                },
                "SHA-256",
            ),
            (
                Config {
                    k3s_version: Some("v1.30.0+k3s1".into()),
                    ..config()
                },
                "k3s from v1.33.5+k3s1",
            ),
            (
                Config {
                    firmware: Some(FirmwareChoice::Uefi),
                    ..config()
                },
                "the firmware from bios",
            ),
        ] {
            let error = resolve(&other).expect("sound").agrees_with(&record());
            let message = error.expect_err(what).to_string();
            assert!(message.contains(what), "{message}");
        }
        let of_record = Spec::resolve(
            &config(),
            Some(&Record {
                disk: Size::gib(30),
                ..record()
            }),
            &Project::at(Path::new("/p/shop")),
        );
        assert_eq!(of_record.expect("sound").disk, Size::gib(30), "left open");
        let changeable = Config {
            disk: Some(Size::gib(40)),
            cpus: Some(8),
            memory: Some(Size::gib(8)),
            api_port: Some(7443),
            k3s_version: Some("1.33.5+k3s1".into()),
            ..config()
        };
        assert!(
            resolve(&changeable)
                .expect("sound")
                .agrees_with(&record())
                .is_ok()
        );
    }

    #[test]
    fn config_paths_are_relative_to_the_project() {
        let config = Config {
            image: Some("./disk.img".into()),
            kubeconfig: Some("kube.yaml".into()),
            ..Config::default()
        };
        let spec = resolve(&config).expect("sound");
        assert_eq!(spec.image, "./disk.img");
        let file = ImageSource::Path("/p/shop/disk.img".into());
        assert_eq!(spec.image_source.to_string(), "/p/shop/disk.img");
        assert_eq!(
            image_name(&file, &Project::at(Path::new("/p/shop"))),
            spec.image
        );
        assert_eq!(
            image_name(&file, &Project::at(Path::new("/q"))),
            "/p/shop/disk.img"
        );
        assert_eq!(spec.kubeconfig, Path::new("/p/shop/kube.yaml"));
    }
}
