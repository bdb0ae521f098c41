//! The version of QEMU, and the oldest one that is supported.

use std::{
    env, fmt, io,
    path::{Path, PathBuf},
};

use qapi::qmp;

use super::answer::answer;

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
    let output = answer(path, &["--version"], "").map_err(|source| VersionError::NotRunning {
        path: path.to_owned(),
        source,
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.lines().next().unwrap_or_default().to_owned())
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
