//! The version of QEMU, and the oldest one that is supported.

use std::{
    env, fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use qapi::qmp;

/// A QEMU release, `major.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The major number; there is a new one each year.
    pub major: u16,
    /// The minor number.
    pub minor: u16,
}

/// The release of Ubuntu 22.04; older ones lack `-action` and JSON `-device` arguments.
pub const OLDEST: Version = Version { major: 6, minor: 2 };

/// The program's name: k3s has amd64 assets, and so has every image of the catalogue.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// How the line of `--version` begins.
const INTRODUCTION: &str = "QEMU emulator version ";

/// The reason why no usable QEMU was found.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// It is not on the `PATH`.
    #[error("{PROGRAM} is not on the PATH")]
    Missing,
    /// It does not run.
    #[error("cannot run {} --version", path.display())]
    NotRunning {
        /// The program.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It prints something else than its version.
    #[error("{} --version says {said:?}, which names no version", path.display())]
    Unknown {
        /// The program.
        path: PathBuf,
        /// Its output.
        said: String,
    },
    /// It is older than [`OLDEST`].
    #[error("{} is QEMU {found}; {OLDEST} or later is needed", path.display())]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: Version,
    },
}

/// The path of the program, from the `PATH`.
pub fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

/// Finds QEMU and its version.
///
/// # Errors
///
/// See [`VersionError`].
pub fn find() -> Result<(PathBuf, Version), VersionError> {
    let path = find_program(PROGRAM).ok_or(VersionError::Missing)?;
    let said = version_line(&path)?;
    match Version::parse(&said) {
        None => Err(VersionError::Unknown { path, said }),
        Some(found) if found < OLDEST => Err(VersionError::TooOld { path, found }),
        Some(found) => Ok((path, found)),
    }
}

/// The first line of `--version`.
fn version_line(path: &Path) -> Result<String, VersionError> {
    let output = Command::new(path).arg("--version").output();
    let output = output.map_err(|source| VersionError::NotRunning {
        path: path.to_owned(),
        source,
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Returns `true` when the program knows a CPU model; `None` when it cannot list models.
pub fn knows_cpu(path: &Path, model: &str) -> Option<bool> {
    let output = Command::new(path).args(["-cpu", "help"]).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut words = said.split_whitespace();
    // Every QEMU for x86-64 has that one.
    said.contains("qemu64").then(|| words.any(|it| it == model))
}

/// The reason why QEMU refuses the features of a CPU model. Whether the host has them depends on KVM and shows at the start.
pub fn refuses_cpu(path: &Path, chosen: &str) -> Option<String> {
    let (model, features) = chosen.split_once(',')?;
    let is_asked = |it: &&str| !["enforce", "check"].contains(&it.split('=').next().unwrap_or(it));
    // `host` needs KVM; `max` has the same properties.
    let model = if model == "host" { "max" } else { model };
    let chosen: Vec<&str> = std::iter::once(model)
        .chain(features.split(',').filter(is_asked))
        .collect();
    let arguments = [
        "-machine",
        "q35,accel=tcg",
        "-nodefaults",
        "-display",
        "none",
    ];
    let mut asked = Command::new(path)
        .args(arguments)
        .args(["-S", "-monitor", "stdio", "-cpu", &chosen.join(",")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // A QEMU that accepts the model runs until it gets this.
    let _ = asked.stdin.take()?.write_all(b"quit\n");
    let ended = asked.wait_with_output().ok()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let last = said.lines().next_back()?;
    let reason = last.rsplit(": ").next()?;
    (!ended.status.success()).then(|| reason.to_owned())
}

/// A feature that a VM needs and this QEMU was built without.
pub fn lacks(path: &Path) -> Option<&'static str> {
    let asked = Command::new(path)
        .args(["-sandbox", "on", "-netdev", "help"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let [said, refused] = [&asked.stdout, &asked.stderr].map(|it| String::from_utf8_lossy(it));
    if !asked.status.success() {
        return refused
            .contains("sandbox")
            .then_some("a sandbox (libseccomp)");
    }
    let has_user = said.lines().any(|it| it.trim() == "user");
    // An older one does not list them.
    (said.contains("tap") && !has_user).then_some("user networking (libslirp)")
}

/// The full version of a program, with the build of its distribution: `7.2.22 (Debian 1:7.2+dfsg-7)`.
///
/// # Errors
///
/// [`VersionError::NotRunning`].
pub fn full(path: &Path) -> Result<String, VersionError> {
    let said = version_line(path)?;
    Ok(said.strip_prefix(INTRODUCTION).unwrap_or(&said).to_owned())
}

/// The full version of a running QEMU, from its answer to `query-version`.
pub fn full_of(answer: &qmp::VersionInfo) -> String {
    let qmp::VersionTriple {
        major,
        minor,
        micro,
    } = answer.qemu;
    // Without a word for the build, `--version` has no brackets.
    match answer.package.as_str() {
        "" => format!("{major}.{minor}.{micro}"),
        package => format!("{major}.{minor}.{micro} ({package})"),
    }
}

impl Version {
    /// Reads the first line of `--version`: `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)`.
    pub fn parse(line: &str) -> Option<Self> {
        Self::of_full(line.strip_prefix(INTRODUCTION)?)
    }

    /// Reads a full version: `7.2.22 (Debian 1:7.2+dfsg-7)`.
    pub fn of_full(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit());
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_version_lines() {
        for (line, major, minor) in [
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)",
                7,
                2,
            ),
            (
                "QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6.26)",
                6,
                2,
            ),
            ("QEMU emulator version 10.0.2", 10, 0),
        ] {
            assert_eq!(Version::parse(line), Some(Version { major, minor }));
        }
        assert_eq!(Version::parse("qemu-system-x86_64: not found"), None);
        assert!(
            Version {
                major: 10,
                minor: 0
            } > OLDEST
        );
    }
}
