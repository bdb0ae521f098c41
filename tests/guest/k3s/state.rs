//! What outlives a process and a reboot: the cluster's age, its identity and its config maps.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Failure;

/// The database of the stand-in.
pub(crate) struct State {
    path: PathBuf,
    kept: Kept,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    created: String,
    node_uid: String,
    starts: u32,
    config_maps: BTreeMap<String, Value>,
}

/// As k3s does with a state.db that sqlite does not read.
fn asks_on() -> ! {
    loop {
        crate::log(
            "error",
            "Failed to ping database connection: file is not a database",
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}

impl State {
    /// Opens the database of a data directory, or begins one, and counts the start.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, Failure> {
        let path = data_dir.join("server/db/state.json");
        std::fs::create_dir_all(data_dir.join("server/db"))?;
        let mut kept = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|_| asks_on()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept {
                created: now(),
                node_uid: uid()?,
                starts: 0,
                config_maps: BTreeMap::new(),
            },
            Err(error) => return Err(error.into()),
        };
        kept.starts += 1;
        let state = Self { path, kept };
        state.save()?;
        Ok(state)
    }

    /// When the cluster was made.
    pub(crate) fn created(&self) -> &str {
        &self.kept.created
    }

    /// The identity of the node.
    pub(crate) fn node_uid(&self) -> &str {
        &self.kept.node_uid
    }

    /// How often a server was started on this database.
    pub(crate) fn starts(&self) -> u32 {
        self.kept.starts
    }

    /// The config maps of the default namespace.
    pub(crate) fn config_maps(&self) -> &BTreeMap<String, Value> {
        &self.kept.config_maps
    }

    /// Keeps a config map.
    pub(crate) fn insert(&mut self, name: String, object: Value) -> Result<(), Failure> {
        self.kept.config_maps.insert(name, object);
        self.save()
    }

    /// Forgets a config map; the answer is the one that was there.
    pub(crate) fn remove(&mut self, name: &str) -> Result<Option<Value>, Failure> {
        let object = self.kept.config_maps.remove(name);
        self.save()?;
        Ok(object)
    }

    fn save(&self) -> Result<(), Failure> {
        write_atomically(&self.path, &serde_json::to_vec(&self.kept)?, 0o600)
    }
}

/// A reader sees the old file or the new one, and so does a machine that lost its power.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let aside = path.with_extension("tmp");
    let _ = std::fs::remove_file(&aside);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&aside, path)?;
    Ok(())
}

/// A time as Kubernetes writes it.
pub(crate) fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// The present as Kubernetes writes it.
pub(crate) fn now() -> String {
    timestamp(SystemTime::now())
}

/// A fresh object identity.
pub(crate) fn uid() -> Result<String, Failure> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/uuid")?
        .trim()
        .to_owned())
}
