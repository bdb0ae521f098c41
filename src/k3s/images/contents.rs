//! The contents of an archive: its documents, and the images that they describe. Two layouts are in use, OCI's and the
//! older one of `docker save`; of the second, what the first would have said is made here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
};

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::json;

use crate::{
    base::Digest,
    k3s::images::{ArchiveError, Reference, parts::plain},
};

pub(crate) const INDEX: &str = "index.json";

pub(crate) const MANIFEST: &str = "manifest.json";

pub(crate) const LAYOUT: &str = "oci-layout";

/// How an archive says the whole name of an image, and how it says it or only the tag.
pub(crate) const WHOLE_NAME: &str = "io.containerd.image.name";

const NAME_OR_TAG: &str = "org.opencontainers.image.ref.name";

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Lists of manifests are nested once in practice.
const DEPTH: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    #[serde(rename = "mediaType", default, deserialize_with = "or_null")]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "or_null"
    )]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    #[serde(default, deserialize_with = "or_null")]
    pub(crate) os: String,
    #[serde(default, deserialize_with = "or_null")]
    pub(crate) architecture: String,
}

/// Go's reader takes null for what is left out.
fn or_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Platform {
    /// As containerd's platforms.Normalize has it: without an os, it is that of the node.
    fn is_ours(&self) -> bool {
        let [os, architecture] = [&self.os, &self.architecture].map(|it| it.to_ascii_lowercase());
        ["", "linux"].contains(&os.as_str())
            && ["amd64", "x86_64", "x86-64"].contains(&architecture.as_str())
    }

    /// What signs or describes an image beside it has no platform of its own.
    fn note(&self, others: &mut BTreeSet<String>) {
        if self.os != "unknown" && !self.os.is_empty() {
            others.insert(format!("{}/{}", self.os, self.architecture));
        }
    }
}

/// An index, a list of manifests or a manifest.
#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// One image of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// A file of the archive that does not describe it.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) size: u64,
    /// What a layer's media type ends with when it is packed so.
    pub(crate) packed: &'static str,
}

/// What is known of an archive when its end is reached.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// `index.json`, `manifest.json` and `oci-layout`.
    pub(crate) outer: HashMap<&'static str, Vec<u8>>,
    pub(crate) blobs: HashMap<String, Blob>,
    pub(crate) links: HashMap<String, String>,
    /// Blobs that may be JSON, by digest.
    pub(crate) documents: HashMap<String, Vec<u8>>,
}

/// An image that the node can run.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: Option<Reference>,
    pub(crate) target: Descriptor,
    /// Its manifest, where the archive itself has none.
    pub(crate) manifest: Option<Vec<u8>>,
}

impl Contents {
    /// The images, in the archive's order; `known` are the digests that the node has.
    pub(crate) fn images(&self, known: &HashSet<String>) -> Result<Vec<Found>, ArchiveError> {
        let mut others = BTreeSet::new();
        let found =
            if let (Some(index), true) = (self.outer.get(INDEX), self.outer.contains_key(LAYOUT)) {
                self.of_layout(index, known, &mut others)?
            } else if let Some(manifest) = self.outer.get(MANIFEST) {
                self.of_docker(manifest, &mut others)?
            } else {
                return Err(ArchiveError::NoImages);
            };
        match (found.is_empty(), others.is_empty()) {
            (false, _) => Ok(found),
            (true, true) => Err(ArchiveError::NoImages),
            (true, false) => Err(ArchiveError::Platform {
                found: others.into_iter().collect::<Vec<_>>().join(" and "),
            }),
        }
    }

    fn of_layout(
        &self,
        index: &[u8],
        known: &HashSet<String>,
        others: &mut BTreeSet<String>,
    ) -> Result<Vec<Found>, ArchiveError> {
        let index: Document = read(INDEX, index)?;
        let has: HashSet<&str> = self
            .blobs
            .values()
            .map(|blob| blob.digest.as_str())
            .collect();
        let is_there = |digest: &str| has.contains(digest) || known.contains(digest);
        let mut all = Vec::new();
        for target in index.manifests.unwrap_or_default() {
            if !self.is_complete(&target, &is_there, others, DEPTH)? {
                continue;
            }
            all.push(Found {
                name: name(&target.annotations),
                target,
                manifest: None,
            });
        }
        Ok(all)
    }

    /// Whether `target` has something for the node's platform, all of which is there.
    fn is_complete(
        &self,
        target: &Descriptor,
        is_there: &dyn Fn(&str) -> bool,
        others: &mut BTreeSet<String>,
        depth: usize,
    ) -> Result<bool, ArchiveError> {
        if let Some(platform) = target.platform.as_ref().filter(|it| !it.is_ours()) {
            platform.note(others);
            return Ok(false);
        }
        let document: Document = self.document(&target.digest)?;
        if let Some(config) = document.config {
            let platform: Platform = self.document(&config.digest)?;
            if !platform.is_ours() {
                platform.note(others);
                return Ok(false);
            }
            let layers = document.layers.unwrap_or_default();
            let needed = layers.into_iter().chain([config]).map(|it| it.digest);
            return match needed.into_iter().find(|it| !is_there(it)) {
                Some(lacks) => Err(ArchiveError::Incomplete(lacks)),
                None => Ok(true),
            };
        }
        let nested = document.manifests.unwrap_or_default();
        let mut lacks = None;
        for inner in nested.iter().filter(|_| depth > 0) {
            match self.is_complete(inner, is_there, others, depth - 1) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // Another variant of the platform may be there.
                Err(error @ ArchiveError::Incomplete(_)) => {
                    lacks.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        lacks.map_or(Ok(false), Err)
    }

    fn of_docker(
        &self,
        manifest: &[u8],
        others: &mut BTreeSet<String>,
    ) -> Result<Vec<Found>, ArchiveError> {
        let mut all = Vec::new();
        for image in read::<Vec<Saved>>(MANIFEST, manifest)? {
            let config = self.blob(&image.config)?;
            let platform: Platform = self.document(&config.digest)?;
            if !platform.is_ours() {
                platform.note(others);
                continue;
            }
            let paths = image.layers.unwrap_or_default();
            let layers = paths.iter().map(|path| {
                let blob = self.blob(path)?;
                let kind = format!("application/vnd.oci.image.layer.v1.tar{}", blob.packed);
                Ok(json!({ "mediaType": kind, "digest": blob.digest, "size": blob.size }))
            });
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": config.digest,
                    "size": config.size,
                },
                "layers": layers.collect::<Result<Vec<_>, ArchiveError>>()?,
            })
            .to_string()
            .into_bytes();
            let found = |name| Found {
                name,
                target: Descriptor {
                    media_type: OCI_MANIFEST.to_owned(),
                    digest: format!("sha256:{}", Digest::of(&manifest)),
                    size: manifest.len() as u64,
                    platform: None,
                    annotations: BTreeMap::new(),
                },
                manifest: Some(manifest.clone()),
            };
            let tags = image.repo_tags.unwrap_or_default();
            if tags.is_empty() {
                all.push(found(None));
            }
            // An invalid tag, like `App:dev`, counts as a missing one.
            all.extend(tags.iter().map(|tag| found(tag.parse().ok())));
        }
        Ok(all)
    }

    /// The file at a path, which may be a link.
    fn blob(&self, path: &str) -> Result<&Blob, ArchiveError> {
        let path = plain(Path::new(path));
        let mut path = path.as_str();
        for _ in 0..DEPTH {
            match (self.blobs.get(path), self.links.get(path)) {
                (Some(blob), _) => return Ok(blob),
                (None, Some(target)) => path = target,
                (None, None) => break,
            }
        }
        Err(ArchiveError::Incomplete(path.to_owned()))
    }

    fn document<T: DeserializeOwned>(&self, digest: &str) -> Result<T, ArchiveError> {
        match self.documents.get(digest) {
            Some(text) => read(digest, text),
            None => Err(ArchiveError::Incomplete(digest.to_owned())),
        }
    }
}

fn read<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(text).map_err(|source| ArchiveError::Document {
        what: what.to_owned(),
        source,
    })
}

/// A tag alone names nothing that a pod could ask for.
fn name(annotations: &BTreeMap<String, String>) -> Option<Reference> {
    let whole = annotations.get(WHOLE_NAME);
    let other = annotations
        .get(NAME_OR_TAG)
        .filter(|name| name.contains(['/', ':', '@']));
    whole.or(other).and_then(|name| name.parse().ok())
}
