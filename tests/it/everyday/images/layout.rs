//! Images made of nothing, as an OCI layout that skopeo reads.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A directory with images.
pub(crate) struct Layout {
    folder: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    pub(crate) fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(folder.join("blobs/sha256")).expect("created");
        fs::write(
            folder.join("oci-layout"),
            r#"{"imageLayoutVersion":"1.0.0"}"#,
        )
        .expect("written");
        Self {
            folder,
            manifests: Vec::new(),
        }
    }

    /// An image of layers with a file each, called by a tag.
    pub(crate) fn image(
        &mut self,
        tag: &str,
        architecture: &str,
        layers: &[(&str, Vec<u8>)],
    ) -> &mut Self {
        let layers: Vec<Vec<u8>> = layers
            .iter()
            .map(|(path, content)| layer(path, content))
            .collect();
        let digests = layers.iter().map(|it| format!("sha256:{}", digest(it)));
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Cmd": ["/app"] },
            "rootfs": { "type": "layers", "diff_ids": digests.collect::<Vec<_>>() },
        });
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| self.blob("application/vnd.oci.image.layer.v1.tar", layer))
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
        let mut manifest = self.blob(kind, manifest.to_string().as_bytes());
        manifest["platform"] = json!({ "architecture": architecture, "os": "linux" });
        self.manifests.push(with_tag(manifest, tag));
        self
    }

    /// All images so far become one for several computers.
    pub(crate) fn together(&mut self, tag: &str) -> &mut Self {
        let kind = "application/vnd.oci.image.index.v1+json";
        let list = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": self.manifests });
        let list = self.blob(kind, list.to_string().as_bytes());
        self.manifests = vec![with_tag(list, tag)];
        self
    }

    fn blob(&self, kind: &str, content: &[u8]) -> Value {
        let digest = digest(content);
        fs::write(self.folder.join("blobs/sha256").join(&digest), content).expect("written");
        json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": content.len() })
    }

    pub(crate) fn written(&self) {
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        fs::write(self.folder.join("index.json"), index.to_string()).expect("written");
    }
}

fn with_tag(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    descriptor
}

fn layer(path: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    archive
        .append_data(&mut header, path, content)
        .expect("in memory");
    archive.into_inner().expect("in memory")
}

fn digest(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest
        .iter()
        .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
