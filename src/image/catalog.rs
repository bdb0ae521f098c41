//! The catalogue of images, and the meaning of `--image`.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::LazyLock,
};

use serde::Deserialize;
use url::Url;

use super::ImageError;
use crate::base::{
    address::{shown, shown_text},
    files::expand_home,
};

/// The pinned images and the k3s version that goes with them: `firmware/catalog.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    #[expect(dead_code, reason = "versions the file for those who edit it")]
    schema: u32,
    default_image: String,
    k3s: Pinned,
    images: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pinned {
    version: String,
}

/// One image of the catalogue.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name for users.
    pub alias: String,
    /// Other names.
    pub also: Vec<String>,
    /// Its name in messages.
    pub name: String,
    /// The URL of the image.
    pub url: String,
    /// The URL of the list of checksums with the image's file name.
    pub checksums: String,
}

static BUILTIN: LazyLock<Catalog> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../firmware/catalog.json"))
        .expect("the catalogue is part of the program, and a test reads it")
});

impl Catalog {
    /// The catalogue of this program.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// The image with this name, in any case.
    pub fn find(&self, alias: &str) -> Option<&Entry> {
        let is_alias = |name: &String| name.eq_ignore_ascii_case(alias);
        self.images
            .iter()
            .find(|entry| is_alias(&entry.alias) || entry.also.iter().any(is_alias))
    }

    /// The alias of the default image.
    pub fn default_image(&self) -> &str {
        &self.default_image
    }

    /// The k3s version for when the channel server cannot be reached.
    pub fn k3s_version(&self) -> &str {
        &self.k3s.version
    }

    /// All images, the best first.
    pub fn images(&self) -> &[Entry] {
        &self.images
    }
}

/// The source of a base image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// An image of the catalogue.
    Alias(&'static Entry),
    /// A file of the user.
    Path(PathBuf),
    /// Another image on the web.
    Url(Url),
}

impl ImageSource {
    /// The default image of the catalogue.
    ///
    /// # Errors
    ///
    /// When the catalogue does not have it, which a test excludes.
    pub fn builtin_default() -> Result<Self, ImageError> {
        Catalog::builtin().default_image().parse()
    }

    /// The source in messages, without the login of a URL.
    pub fn shown(&self) -> String {
        match self {
            Self::Url(url) => shown(url),
            _ => self.to_string(),
        }
    }
}

/// A text is a path with a `/` or `.` at the beginning, a URL with `://` (or `file:`), a path with another `/` or if it
/// exists, else an alias. Aliases come before files of the current directory, so that a directory called `debian`
/// changes nothing; `./debian` is always a path.
impl FromStr for ImageSource {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("~/") {
            return Ok(Self::Path(expand_home(Path::new(text))));
        }
        let is_path = text.starts_with(['/', '.']);
        if !is_path && (text.contains("://") || text.starts_with("file:")) {
            return parse_url(text);
        }
        if is_path || text.contains('/') {
            return Ok(Self::Path(absolute(text)));
        }
        let catalog = Catalog::builtin();
        if let Some(entry) = catalog.find(text) {
            return Ok(Self::Alias(entry));
        }
        if Path::new(text).is_file() {
            return Ok(Self::Path(absolute(text)));
        }
        let known: Vec<&str> = catalog
            .images
            .iter()
            .map(|entry| entry.alias.as_str())
            .collect();
        Err(ImageError::UnknownAlias {
            alias: text.to_owned(),
            known: known.join(", "),
        })
    }
}

/// Parses to the same source: the alias, the absolute path or the URL.
impl fmt::Display for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alias(entry) => f.write_str(&entry.alias),
            Self::Path(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

fn parse_url(text: &str) -> Result<ImageSource, ImageError> {
    let bad = |reason: &str| ImageError::BadUrl {
        url: shown_text(text),
        reason: reason.to_owned(),
    };
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(ImageSource::Url(url)),
        "file" => match url.to_file_path() {
            // Saved as text, so it must be Unicode.
            Ok(path) if path.to_str().is_some() => Ok(ImageSource::Path(path)),
            Ok(_) => Err(bad("the path in it is not UTF-8")),
            Err(()) => Err(bad("it names no file of this host")),
        },
        _ => Err(bad("it takes http, https or file")),
    }
}

/// Independent of the current directory; unchanged if that does not exist.
fn absolute(text: &str) -> PathBuf {
    std::path::absolute(text).unwrap_or_else(|_| PathBuf::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alias_finds_its_image() {
        let catalog = Catalog::builtin();
        for (aliases, file) in [
            (
                "ubuntu-26.04 ubuntu 26.04 resolute UBUNTU",
                "ubuntu-26.04-server-cloudimg-amd64.img",
            ),
            (
                "ubuntu-24.04 24.04 noble",
                "ubuntu-24.04-server-cloudimg-amd64.img",
            ),
            (
                "ubuntu-22.04 22.04 jammy",
                "ubuntu-22.04-server-cloudimg-amd64.img",
            ),
            ("debian-13 debian trixie", "debian-13-generic-amd64.qcow2"),
            (
                "debian-13-genericcloud",
                "debian-13-genericcloud-amd64.qcow2",
            ),
            ("debian-12 bookworm", "debian-12-genericcloud-amd64.qcow2"),
        ] {
            for alias in aliases.split(' ') {
                let entry = catalog.find(alias).expect(alias);
                assert!(entry.url.ends_with(file), "{alias}: {}", entry.url);
            }
        }
        assert!(catalog.find("plan9").is_none());
        assert!(catalog.k3s_version().starts_with("v1."));
    }

    #[test]
    fn the_catalog_is_consistent() {
        let catalog = Catalog::builtin();
        let names: Vec<&String> = catalog
            .images()
            .iter()
            .flat_map(|entry| entry.also.iter().chain([&entry.alias]))
            .collect();
        for name in &names {
            assert_eq!(
                names.iter().filter(|other| *other == name).count(),
                1,
                "{name} is clear"
            );
        }
        for entry in catalog.images() {
            let [url, checksums] =
                [&entry.url, &entry.checksums].map(|url| Url::parse(url).expect(url));
            assert_eq!(url.scheme(), "https");
            assert_eq!(
                url.join(".").expect("directory"),
                checksums.join(".").expect("directory")
            );
        }
        let default = ImageSource::builtin_default().expect("is in it");
        assert_eq!(default.to_string(), "debian-13");
    }

    #[test]
    fn an_image_can_be_named_in_four_ways() {
        let parse = |text: &str| {
            text.parse::<ImageSource>()
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            parse("file:///srv/a%20b.img"),
            Ok(ImageSource::Path("/srv/a b.img".into()))
        );
        assert_eq!(
            parse("/srv/debian"),
            Ok(ImageSource::Path("/srv/debian".into()))
        );
        let here = std::env::current_dir().expect("there is one");
        assert_eq!(
            parse("./debian"),
            Ok(ImageSource::Path(here.join("debian")))
        );
        assert_eq!(
            parse("Cargo.toml"),
            Ok(ImageSource::Path(here.join("Cargo.toml")))
        );
        for same in ["debian-12", "https://example.org/x.img?a=b", "/srv/x y.img"] {
            assert_eq!(
                parse(same).map(|source| source.to_string()),
                Ok(same.to_owned())
            );
        }
    }

    #[test]
    fn unknown_aliases_are_rejected_with_the_list() {
        let error = |text: &str| text.parse::<ImageSource>().expect_err(text).to_string();
        assert!(error("plan9").contains("debian-13, debian-13-genericcloud, ubuntu-26.04"));
        assert!(error("ftp://example.org/x.img").contains("ftp://example.org/x.img"));
        assert!(error("http://").contains("http://"));
        assert!(error("file://elsewhere/x.img").contains("no file of this host"));
        assert!(error("").contains("unknown image"));
    }
}
