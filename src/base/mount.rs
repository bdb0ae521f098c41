//! Directories of the host in the guest: `./src:/src`, and `~/data:/data:ro`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::base::as_text::serialize_as_text;

/// A directory of the host, and its place in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The host's directory, as users write it: absolute, relative to the project, or with a tilde for the home
    /// directory.
    pub host: String,
    /// The guest's directory: absolute, without a slash at its end.
    pub guest: String,
    /// The guest can only read it.
    pub read_only: bool,
}

/// The reason why a text is not a mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseMountError {
    /// Its form is wrong.
    #[error(
        "invalid mount {0:?}: expected HOST:GUEST or HOST:GUEST:ro, e.g. ./src:/src or ~/data:/data:ro"
    )]
    Malformed(String),
    /// A directory of the guest that must not be hidden.
    #[error("cannot mount at {0}: the guest needs it; use another path, e.g. /src or /mnt/data")]
    Own(String),
}

/// Paths that the guest boots and runs from, with everything below them.
const OWN: [&str; 17] = [
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "lost+found",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
];

impl Mount {
    /// The host's directory, for the project in `project` and the home directory `home`.
    pub fn host_folder(&self, project: &Path, home: &Path) -> PathBuf {
        match self.host.strip_prefix('~') {
            Some("") => home.to_owned(),
            Some(rest) if rest.starts_with('/') => home.join(&rest[1..]),
            // Without dots in the middle.
            _ => project.join(&self.host).components().collect(),
        }
    }

    /// The name of systemd's unit for it in the guest, without its type (systemd.unit(5), "String escaping").
    pub fn unit(&self) -> String {
        let path = self.guest.trim_start_matches('/');
        let mut unit = String::new();
        for (place, byte) in path.bytes().enumerate() {
            match byte {
                b'/' => unit.push('-'),
                b'.' if place == 0 => unit += "\\x2e",
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b':' | b'_' | b'.' => {
                    unit.push(char::from(byte));
                }
                other => unit += &format!("\\x{other:02x}"),
            }
        }
        unit
    }
}

/// The first mount with the same place as an earlier one.
pub fn twice(mounts: &[Mount]) -> Option<&Mount> {
    let taken = |index: usize, it: &Mount| mounts[..index].iter().any(|one| one.guest == it.guest);
    let mut all = mounts.iter().enumerate();
    all.find(|&(index, it)| taken(index, it)).map(|(_, it)| it)
}

impl FromStr for Mount {
    type Err = ParseMountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseMountError::Malformed(text.to_owned());
        let (folders, read_only) = match text.strip_suffix(":ro") {
            Some(folders) => (folders, true),
            None => (text.strip_suffix(":rw").unwrap_or(text), false),
        };
        // A directory of the host may have a colon in its name; a mount point in the guest may not.
        let (host, guest) = folders.rsplit_once(':').ok_or_else(malformed)?;
        if host.is_empty() || !guest.starts_with('/') || text.chars().any(char::is_control) {
            return Err(malformed());
        }
        let parts: Vec<&str> = guest.split('/').filter(|part| !part.is_empty()).collect();
        let guest = format!("/{}", parts.join("/"));
        // systemd would not take these at the end of a line as part of the name.
        let odd = guest.contains('\\') || guest.ends_with(char::is_whitespace);
        if odd || parts.iter().any(|part| [".", ".."].contains(part)) {
            return Err(malformed());
        }
        if parts.first().is_none_or(|first| OWN.contains(first)) {
            return Err(ParseMountError::Own(guest));
        }
        Ok(Self {
            host: host.to_owned(),
            guest,
            read_only,
        })
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = if self.read_only { ":ro" } else { "" };
        write!(f, "{}:{}{end}", self.host, self.guest)
    }
}

serialize_as_text!(Mount);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_its_own_output() {
        for (text, shown) in [
            ("./src:/src", "./src:/src"),
            ("~/data:/data/:ro", "~/data:/data:ro"),
            ("/a b,c:d://srv//x:rw", "/a b,c:d:/srv/x"),
            (".:/home/me", ".:/home/me"),
        ] {
            assert_eq!(text.parse::<Mount>().expect(text).to_string(), shown);
        }
    }

    #[test]
    fn rejects_invalid_values() {
        for (text, word) in [
            ("", "HOST:GUEST"),
            ("/src", "HOST:GUEST"),
            (":/src", "HOST:GUEST"),
            ("./src:", "HOST:GUEST"),
            ("./src:src", "HOST:GUEST"),
            ("./src:/a/../etc", "HOST:GUEST"),
            ("./src:/a\nb", "HOST:GUEST"),
            ("./src:/src:rx", "HOST:GUEST"),
            ("./src:/src ", "HOST:GUEST"),
            ("./src:/src\\", "HOST:GUEST"),
            ("./src:/", "cannot mount at /:"),
            ("./src:/etc", "cannot mount at /etc:"),
            ("./src:/usr/local/src:ro", "cannot mount at /usr/local/src:"),
            ("./src://var/lib/", "cannot mount at /var/lib:"),
        ] {
            let message = text.parse::<Mount>().expect_err(text).to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn host_paths_are_relative_to_project_or_home() {
        let folder = |text: &str| {
            let mount: Mount = text.parse().expect(text);
            mount.host_folder(Path::new("/p/shop"), Path::new("/home/me"))
        };
        assert_eq!(folder("./src:/src").as_os_str(), "/p/shop/src");
        assert_eq!(folder("/data:/src"), Path::new("/data"));
        assert_eq!(folder("~/data:/src"), Path::new("/home/me/data"));
        assert_eq!(folder("~:/src"), Path::new("/home/me"));
        assert_eq!(folder("~you:/src"), Path::new("/p/shop/~you"));
    }

    #[test]
    fn unit_names_follow_systemd() {
        let unit = |text: &str| text.parse::<Mount>().expect(text).unit();
        assert_eq!(unit("x:/src"), "src");
        assert_eq!(unit("x:/srv/my-app_1.0"), "srv-my\\x2dapp_1.0");
        assert_eq!(unit("x:/.a b"), "\\x2ea\\x20b");
    }
}
