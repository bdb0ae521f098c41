//! The configuration of a guest, as an archive of files that it unpacks: k3s's configuration, registries, manifests,
//! proxies, certificates, DNS servers, directories of the host.
//!
//! It lies on the seed, and a digest of it is the serial number that the guest sees of the VM. A guest that has taken
//! another one looks again (apply-identity.sh), so that a start with nothing new has nothing to do.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::Read,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;
use tar::{Builder, EntryType, Header};

use crate::{
    base::{
        Digest, FileError, Name, Size,
        files::{self, PRIVATE},
        proxy::HOST_IN_GUEST,
        resolv_conf, yaml,
    },
    k3s::config::server_config,
    machine::{
        MachineError, Spec,
        guest_config::{host_dns, mounts, proxy_env},
    },
    project::{Project, Record},
};

/// All of it goes through a port of the guest, in the first boot.
const MOST: Size = Size::mib(16);

const ROOT_ALONE: u32 = 0o600;

const EVERYBODY: u32 = 0o644;

/// User networking's own DNS server, which forwards to the host's.
const USERNET_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3));

/// The directory from which k3s deploys manifests; the directory above is root's alone, as k3s makes it.
const SERVER: &str = "var/lib/rancher/k3s/server";

const MANIFESTS: &str = "var/lib/rancher/k3s/server/manifests/k3s-vm";

/// Writes the settings that the guest takes at its next start.
///
/// # Errors
///
/// When something that they name cannot be used, or they cannot be written.
pub(crate) fn write_config_archive(
    project: &Project,
    spec: &Spec,
    record: &Record,
) -> Result<(), MachineError> {
    let wanted = archive(project, spec, &record.name)?;
    let path = project.config_archive();
    if current_config_archive(project)?.as_ref() != Some(&wanted) {
        files::write(&path, &wanted, PRIVATE)?;
    }
    Ok(())
}

/// The guest config as it was last written; `None` for a VM of an older program, whose guest does not read it.
pub(crate) fn current_config_archive(project: &Project) -> Result<Option<Vec<u8>>, FileError> {
    let path = project.config_archive();
    match files::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns `true` when the guest got other settings at its last start than it would get now.
///
/// # Errors
///
/// Those of [`lay`].
pub(crate) fn config_changed(
    project: &Project,
    spec: &Spec,
    record: &Record,
) -> Result<bool, MachineError> {
    let wanted = archive(project, spec, &record.name)?;
    Ok(current_config_archive(project)?.is_some_and(|it| it != wanted))
}

/// The serial number of a VM with these settings and this disk: the guest looks at both when it is another one.
pub(crate) fn serial(settings: &[u8], disk: Size) -> String {
    let disk = disk.as_bytes().to_le_bytes();
    Digest::of(&[settings, &disk].concat()).short(32)
}

/// The ports of the host's loopback that the configuration names: a proxy, a registry, whatever a manifest or a flag of k3s
/// has as `10.0.2.2:PORT`, and those of a URL without a port.
pub(crate) fn named_ports(settings: &[u8]) -> BTreeSet<u16> {
    let text = String::from_utf8_lossy(settings);
    let around: Vec<&str> = text.split(HOST_IN_GUEST).collect();
    let ports = around.windows(2).filter_map(|it| named_port(it[0], it[1]));
    ports.collect()
}

fn named_port(before: &str, after: &str) -> Option<u16> {
    if let Some(rest) = after.strip_prefix(':') {
        let end = rest.find(|c: char| !c.is_ascii_digit());
        return rest[..end.unwrap_or(rest.len())].parse().ok();
    }
    // Of another address, it is the beginning.
    if after.starts_with(|c: char| c == '.' || c.is_ascii_digit()) {
        return None;
    }
    let scheme = before.strip_suffix("://")?;
    let of = |name| scheme.ends_with(name);
    match () {
        () if of("https") => Some(443),
        () if of("http") => Some(80),
        () if of("socks5") || of("socks5h") => Some(1080),
        () => None,
    }
}

struct File {
    path: String,
    mode: u32,
    content: Vec<u8>,
}

/// The archive of the settings. Equal settings give equal bytes.
///
/// # Errors
///
/// When a file that they name is not there or is not what it should be.
pub(crate) fn archive(
    project: &Project,
    spec: &Spec,
    name: &Name,
) -> Result<Vec<u8>, MachineError> {
    let mut all = vec![File {
        path: "etc/rancher/k3s/config.yaml".into(),
        mode: ROOT_ALONE,
        content: server_config(name, &spec.k3s).into_bytes(),
    }];
    all.extend(registries(project, spec)?);
    all.extend(
        proxy_env::environment(&spec.network, &spec.k3s, name).map(|content| File {
            path: "etc/default/k3s".into(),
            mode: ROOT_ALONE,
            content: content.into_bytes(),
        }),
    );
    all.extend(certificates(project, spec)?);
    all.push(dns_servers(&host_dns::servers(project, spec)?));
    all.extend(manifests(project, spec)?);
    let units = mounts::units(&spec.mounts).into_iter();
    all.extend(units.map(|(path, content)| File {
        path,
        mode: EVERYBODY,
        content: content.into_bytes(),
    }));
    let size: usize = all.iter().map(|it| it.content.len()).sum();
    if size as u64 > MOST.as_bytes() {
        let size = Size::bytes(size as u64).approximate();
        return Err(MachineError::Choice(format!(
            "registries, certificates and manifests are too large: {size} of at most {MOST}"
        )));
    }
    Ok(packed(&all))
}

fn packed(all: &[File]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let memory = "memory takes what is written to it";
    let mut server = header(0, 0o700);
    server.set_entry_type(EntryType::Directory);
    builder
        .append_data(&mut server, format!("{SERVER}/"), &[][..])
        .expect(memory);
    for File {
        path,
        mode,
        content,
    } in all
    {
        let mut header = header(content.len() as u64, *mode);
        builder
            .append_data(&mut header, path, content.as_slice())
            .expect(memory);
    }
    builder.into_inner().expect(memory)
}

fn header(size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn registries(project: &Project, spec: &Spec) -> Result<Option<File>, MachineError> {
    let Some(path) = &spec.k3s.registries else {
        return Ok(None);
    };
    let path = project.resolve(path);
    let content = read(&path)?;
    let parsed = std::str::from_utf8(&content)
        .map_err(|error| error.to_string())
        .and_then(|text| {
            serde_saphyr::from_str::<Value>(text).map_err(|error| yaml::reason(&error))
        });
    match parsed {
        Ok(Value::Object(_)) => {}
        Ok(_) => return Err(unusable(&path, "it has no mirrors and no configs")),
        Err(reason) => return Err(unusable(&path, &format!("it is not YAML: {reason}"))),
    }
    Ok(Some(File {
        path: "etc/rancher/k3s/registries.yaml".into(),
        mode: ROOT_ALONE,
        content,
    }))
}

/// One certificate a file, as update-ca-certificates(8) wants them.
fn certificates(project: &Project, spec: &Spec) -> Result<Vec<File>, MachineError> {
    let mut all = Vec::new();
    for path in spec.network.ca.iter().flatten() {
        let path = project.resolve(path);
        let text = read(&path)?;
        let before = all.len();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            // The parser's own words repeat all of the text.
            let certificate = certificate
                .map_err(|_| unusable(&path, "it is not PEM: BEGIN, END and 64 letters a line"))?;
            if !is_whole_der(&certificate) {
                return Err(unusable(
                    &path,
                    "a certificate in it is truncated or damaged",
                ));
            }
            all.push(File {
                path: format!(
                    "usr/local/share/ca-certificates/k3s-vm-{}.crt",
                    all.len() + 1
                ),
                mode: EVERYBODY,
                content: pem(&certificate),
            });
        }
        if all.len() == before {
            return Err(unusable(&path, "it contains no certificate; expected PEM"));
        }
    }
    Ok(all)
}

/// Returns `true` for one DER sequence of exactly that length (X.690, 8.1). Go and OpenSSL skip others without an error.
fn is_whole_der(bytes: &[u8]) -> bool {
    let [0x30, length, rest @ ..] = bytes else {
        return false;
    };
    match usize::from(*length) {
        short if short < 0x80 => rest.len() == short,
        long => match rest.split_at_checked(long - 0x80) {
            Some((length, content)) if (1..=4).contains(&length.len()) => {
                let length = length.iter().fold(0, |all, it| all << 8 | usize::from(*it));
                content.len() == length
            }
            _ => false,
        },
    }
}

fn pem(certificate: &[u8]) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(certificate);
    let lines = text
        .as_bytes()
        .chunks(64)
        .map(|line| [line, b"\n"].concat());
    let body: Vec<u8> = lines.flatten().collect();
    [
        b"-----BEGIN CERTIFICATE-----\n",
        body.as_slice(),
        b"-----END CERTIFICATE-----\n",
    ]
    .concat()
}

/// The DNS servers for `network.sh`: user networking's own unless others are chosen.
fn dns_servers(servers: &[IpAddr]) -> File {
    let text = match servers {
        [] => resolv_conf::text(&[USERNET_DNS]),
        servers => resolv_conf::text(servers),
    };
    File {
        path: "etc/k3s-vm/resolv.conf".into(),
        mode: EVERYBODY,
        content: text.into_bytes(),
    }
}

/// The manifests of a directory and of those in it, by their names.
fn manifests(project: &Project, spec: &Spec) -> Result<Vec<File>, MachineError> {
    let mut all = Vec::new();
    for path in spec.k3s.manifests.iter().flatten() {
        let path = project.resolve(path);
        let before = all.len();
        if path.is_dir() {
            add_folder(&mut all, &path, "", &mut HashSet::new())?;
        } else {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            add_manifest(&mut all, &path, &name)?;
        }
        if all.len() == before {
            return Err(unusable(&path, "it contains no .yaml, .yml or .json file"));
        }
    }
    Ok(all)
}

/// Each directory once: a link may lead to one that is `known` already, or back to where it is itself.
fn add_folder(
    all: &mut Vec<File>,
    folder: &Path,
    within: &str,
    known: &mut HashSet<(u64, u64)>,
) -> Result<(), MachineError> {
    let metadata = fs::metadata(folder).map_err(FileError::on("list", folder))?;
    if !known.insert((metadata.dev(), metadata.ino())) {
        return Ok(());
    }
    let entries = fs::read_dir(folder).map_err(FileError::on("list", folder))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // Whatever begins with a dot is an editor's or git's.
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{within}{name}");
        if path.is_dir() {
            add_folder(all, &path, &format!("{name}/"), known)?;
        } else {
            add_manifest(all, &path, &name)?;
        }
    }
    Ok(())
}

fn add_manifest(all: &mut Vec<File>, path: &Path, name: &str) -> Result<(), MachineError> {
    if ![".yaml", ".yml", ".json"]
        .iter()
        .any(|end| name.ends_with(end))
    {
        return Ok(());
    }
    let target = format!("{MANIFESTS}/{name}");
    if all.iter().any(|it| it.path == target) {
        return Err(unusable(path, "another manifest has the same name"));
    }
    all.push(File {
        path: target,
        mode: ROOT_ALONE,
        content: read(path)?,
    });
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, MachineError> {
    let mut bytes = Vec::new();
    files::open_regular(path)?
        .take(MOST.as_bytes() + 1)
        .read_to_end(&mut bytes)
        .map_err(FileError::on("read", path))?;
    if bytes.len() as u64 > MOST.as_bytes() {
        return Err(unusable(path, &format!("it is larger than {MOST}")));
    }
    Ok(bytes)
}

fn unusable(path: &Path, reason: &str) -> MachineError {
    MachineError::Choice(format!("{} cannot be used: {reason}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_whole() {
        let long = [&[0x30, 0x82, 1, 0][..], &[0; 256]].concat();
        for whole in [&[0x30, 0][..], &[0x30, 3, 1, 2, 3], &long] {
            assert!(is_whole_der(whole));
            assert!(!is_whole_der(&whole[..whole.len() - 1]), "truncated");
            assert!(!is_whole_der(&[whole, &[0]].concat()), "more");
        }
        let wrong: [&[u8]; 5] = [
            b"",
            b"\x30",
            b"\x31\0",
            b"\x30\x80",
            b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        ];
        for bytes in wrong {
            assert!(!is_whole_der(bytes), "{bytes:x?}");
        }
    }

    #[test]
    fn ports_of_the_host_that_are_named() {
        for (text, ports) in [
            ("NO_PROXY=localhost,10.0.2.2,10.0.2.0/24", &[][..]),
            ("HTTP_PROXY=http://me:w@10.0.2.2:3128\nx", &[3128]),
            (
                "- http://10.0.2.2:5000\n- https://10.0.2.2/v2/",
                &[443, 5000],
            ),
            ("socks5h://10.0.2.2\nhttp://10.0.2.2\n", &[80, 1080]),
            ("http://10.0.2.20 10.0.2.21:5000 10.0.2.2.example:1", &[]),
            ("10.0.2.2:99999 10.0.2.2:", &[]),
        ] {
            let named: Vec<u16> = named_ports(text.as_bytes()).into_iter().collect();
            assert_eq!(named, ports, "{text}");
        }
    }
}
