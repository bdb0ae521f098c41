//! The resources of the host: QEMU, KVM, memory, disk space, ports. `doctor` shows them, `setup` needs them.

use std::{
    env, fs,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use rustix::process::{Resource, getrlimit};
use tokio::sync::OnceCell;

use crate::{
    base::{Digest, Forward, HostPort, Protocol, Size},
    machine::{MachineError, error::machine::describe_kvm},
    project::config_values::AccelChoice,
    qemu::{Accelerator, Version, features, kvm::Kvm, version},
};

/// The host, as far as it was examined.
#[derive(Debug)]
pub struct Host {
    /// QEMU's path.
    pub qemu: PathBuf,
    /// QEMU's version.
    pub version: Version,
    /// The file with the verdict on KVM, valid until the host boots again.
    pub kvm_memory: PathBuf,
    kvm: OnceCell<Kvm>,
}

impl Host {
    /// Finds QEMU.
    ///
    /// # Errors
    ///
    /// When QEMU is missing or too old.
    pub fn detect(cache: &Path) -> Result<Self, MachineError> {
        let (qemu, version) = version::find()?;
        Ok(Self {
            qemu,
            version,
            kvm_memory: cache.join("kvm.json"),
            kvm: OnceCell::new(),
        })
    }

    /// The verdict on KVM; probed once.
    pub async fn kvm(&self) -> &Kvm {
        self.kvm
            .get_or_init(|| Kvm::probe(&self.qemu, &self.kvm_memory))
            .await
    }

    /// The accelerator for a choice.
    ///
    /// # Errors
    ///
    /// When KVM is insisted on and does not work.
    pub async fn accelerator(&self, choice: AccelChoice) -> Result<Accelerator, MachineError> {
        match choice {
            AccelChoice::Tcg => Ok(Accelerator::Tcg),
            AccelChoice::Auto | AccelChoice::Kvm => match self.kvm().await {
                Kvm::Works => Ok(Accelerator::Kvm),
                broken if choice == AccelChoice::Kvm => Err(MachineError::Kvm(broken.clone())),
                _ => Ok(Accelerator::Tcg),
            },
        }
    }
}

/// The host's CPU as a guest with these arguments sees it: the vendor, and without a chosen model the host's model and
/// a digest of its features. `None` for an emulated guest.
pub fn processor(arguments: &[String]) -> Option<String> {
    if !arguments.iter().any(|it| it == "-enable-kvm") {
        return None;
    }
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let value = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(": ")?.1)
    };
    let vendor = value("vendor_id")?;
    if !arguments.iter().any(|it| it == "-cpu host") {
        return Some(vendor.to_owned());
    }
    let features = Digest::of(value("flags")?.as_bytes()).short(16);
    Some(format!("{vendor} {} {features}", value("model name")?))
}

/// A warning, given once.
pub fn warn_of_emulation(kvm: &Kvm) {
    tracing::warn!(
        "running without KVM, many times slower (see k3s-vm doctor): {}",
        describe_kvm(kvm)
    );
}

/// Returns `true` when QEMU runs as root of this host. In a container, root is the usual user.
pub fn is_root() -> bool {
    let marks = [
        "/.dockerenv",
        "/run/.containerenv",
        "/run/systemd/container",
    ];
    let in_container =
        env::var_os("container").is_some() || marks.iter().any(|it| Path::new(it).exists());
    nix::unistd::getuid().is_root() && !in_container
}

/// A warning, given when a VM is created.
pub fn warn_of_root() {
    if is_root() {
        tracing::warn!("{AS_ROOT}");
    }
}

/// The consequence of running as root.
pub const AS_ROOT: &str = "running as root: QEMU has root's rights; use a user account";

/// The available memory, from `/proc/meminfo`.
pub fn available_memory() -> Option<Size> {
    meminfo("MemAvailable:")
}

fn meminfo(key: &str) -> Option<Size> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(Size::bytes(
        line.split_whitespace().next()?.parse::<u64>().ok()? << 10,
    ))
}

/// The memory that QEMU needs besides the guest's: its own, and the page tables.
const QEMU_OVERHEAD: Size = Size::mib(256);

const CGROUPS: &str = "/sys/fs/cgroup";

/// The lowest memory limit of this process's cgroup and its parents, and the file that sets it (cgroups(7)).
fn cgroup_limit() -> Option<(Size, PathBuf)> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut limits = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, file) = match controllers {
            "" => (CGROUPS.to_owned(), "memory.max"),
            it if it.split(',').any(|it| it == "memory") => {
                (format!("{CGROUPS}/memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for inner in Path::new(path).ancestors() {
            let inner = inner.strip_prefix("/").unwrap_or(inner);
            let file = Path::new(&root).join(inner).join(file);
            let limit = fs::read_to_string(&file).ok();
            // "max" is not a number, and means no limit.
            let limit = limit.and_then(|it| it.trim().parse().ok());
            limits.extend(limit.map(|it| (Size::bytes(it), file)));
        }
    }
    limits.into_iter().min_by_key(|(limit, _)| *limit)
}

/// Requires that the guest's memory is available. Memory in use now may be swapped out, or be a cache that shrinks.
///
/// # Errors
///
/// [`MachineError::Memory`] when it cannot.
pub fn check_memory(wanted: Size) -> Result<(), MachineError> {
    require_memory(wanted)?;
    if let Some((limit, file)) = cgroup_limit()
        && limit.as_bytes() < wanted.as_bytes() + QEMU_OVERHEAD.as_bytes()
    {
        tracing::warn!(
            "the kernel may end QEMU: with a VM of {wanted} it needs {} more than this process may use, {} ({})",
            Size::bytes(wanted.as_bytes() + QEMU_OVERHEAD.as_bytes() - limit.as_bytes())
                .approximate(),
            limit.approximate(),
            file.display()
        );
    }
    if let Some(available) = available_memory()
        && available < wanted
    {
        tracing::warn!(
            "the host may swap or end QEMU: the VM needs {wanted} of memory, and {} are available",
            available.approximate()
        );
    }
    Ok(())
}

/// Requires that the guest's memory fits the host's total memory and the limit of the cgroup.
///
/// # Errors
///
/// [`MachineError::Memory`] when it is not.
pub fn require_memory(wanted: Size) -> Result<(), MachineError> {
    let refused = |limit: String| Err(MachineError::Memory { wanted, limit });
    if let Some(total) = meminfo("MemTotal:") {
        let swap = meminfo("SwapTotal:").unwrap_or(Size::bytes(0));
        let all = Size::bytes(total.as_bytes() + swap.as_bytes());
        if all < wanted {
            return refused(format!("the host has {} with its swap", all.approximate()));
        }
    }
    if let Some(limit) = getrlimit(Resource::As).current
        && limit < wanted.as_bytes()
    {
        let limit = Size::bytes(limit).approximate();
        return refused(format!("this process may use {limit} (ulimit -v)"));
    }
    if let Some((limit, file)) = cgroup_limit()
        && limit < wanted
    {
        let (limit, file) = (limit.approximate(), file.display());
        return refused(format!("this process may use {limit} ({file})"));
    }
    Ok(())
}

/// Requires that QEMU knows the chosen CPU model.
///
/// # Errors
///
/// [`MachineError::Choice`] when it does not.
pub fn check_cpu_model(chosen: Option<&str>, accel: AccelChoice) -> Result<(), MachineError> {
    let Some((chosen, qemu)) = chosen.zip(version::find_program(version::PROGRAM)) else {
        return Ok(());
    };
    let model = chosen.split(',').next().unwrap_or_default();
    match features::knows_cpu(&qemu, model) {
        Some(false) => Err(MachineError::Choice(format!(
            "unknown CPU model {model:?}; to list them: qemu-system-x86_64 -cpu help"
        ))),
        _ if model == HOST_CPU && accel == AccelChoice::Tcg => Err(MachineError::Choice(format!(
            "the CPU model {model:?} needs KVM, and KVM is not used (accel = \"tcg\")"
        ))),
        _ => match features::refuses_cpu(&qemu, chosen) {
            Some(reason) => Err(MachineError::Choice(format!(
                "invalid CPU model {chosen:?}: QEMU says {reason:?}"
            ))),
            None => Ok(()),
        },
    }
}

/// The CPU model that needs KVM.
const HOST_CPU: &str = "host";

/// Requires that a port of 127.0.0.1 is free.
///
/// # Errors
///
/// [`MachineError::PortTaken`], or [`MachineError::PortRefused`] for ports that the user may not open.
pub fn check_port(host: HostPort) -> Result<(), MachineError> {
    let port = host.port;
    match listen(host.protocol, host.address()) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(MachineError::PortTaken { port }),
        Err(error) => Err(MachineError::PortRefused {
            port,
            reason: error.to_string(),
        }),
    }
}

/// A free port.
///
/// # Errors
///
/// When there is none.
pub fn free_port(protocol: Protocol) -> Result<HostPort, MachineError> {
    match listen(protocol, (Ipv4Addr::LOCALHOST, 0).into()) {
        Ok(address) => Ok(HostPort {
            port: address.port(),
            protocol,
        }),
        Err(error) => Err(MachineError::PortRefused {
            port: 0,
            reason: error.to_string(),
        }),
    }
}

/// Binds the port for a moment.
fn listen(protocol: Protocol, address: SocketAddr) -> std::io::Result<SocketAddr> {
    match protocol {
        Protocol::Tcp => TcpListener::bind(address)?.local_addr(),
        Protocol::Udp => UdpSocket::bind(address)?.local_addr(),
    }
}

/// The API's default port, which the first VM of a host gets.
const USUAL_API_PORT: u16 = 6443;

/// The API's port for a start: the chosen one or an error, else `last` time's, else the default one, else a free one.
///
/// # Errors
///
/// When the chosen port cannot be had.
pub fn api_port(chosen: Option<u16>, last: Option<u16>) -> Result<u16, MachineError> {
    let check = |port| check_port(Forward::tcp(port, 6443).host);
    if let Some(port) = chosen {
        return check(port).map(|()| port);
    }
    let usual = [last, Some(USUAL_API_PORT)]
        .into_iter()
        .flatten()
        .find(|&port| check(port).is_ok());
    if let Some(port) = usual {
        return Ok(port);
    }
    free_port(Protocol::Tcp).map(|it| it.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_an_error_only_if_chosen() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = taken.local_addr().expect("its address").port();
        assert!(
            matches!(api_port(Some(port), None), Err(MachineError::PortTaken { port: it }) if it == port)
        );
        assert_ne!(api_port(None, Some(port)).expect("another one"), port);
        drop(taken);
        assert_eq!(api_port(None, Some(port)).expect("free again"), port);
    }
}
