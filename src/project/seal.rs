//! Proof that a state file was written by this user's k3s-vm: an HMAC-SHA-256 (RFC 2104) by a key in the user's
//! own config directory, which is in no project.
//!
//! A `.k3s-vm/` that came with a repository or an archive of another user has no such proof, or one by another key.
//! Nothing in a project depends on its place, so that a project can be moved, copied and restored.

use std::{
    env, io,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::base::{
    FileError,
    files::{self, PRIVATE, create_private_dir, refused},
    user_dirs::config_home,
};

/// Directories whose projects are trusted without a proof, separated like those of `PATH`.
pub const TRUSTED_PATHS: &str = "K3S_VM_TRUSTED_PATHS";

/// The member of a JSON document that holds its MAC, in base64.
const MEMBER: &str = "mac";

/// The key's length in bytes: that of the hash, as RFC 2104 recommends.
const KEY_LENGTH: usize = 32;

/// The kind of a sealed file: a MAC is valid only for its kind.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `record.json`.
    Record,
    /// `suspended.json`.
    Suspended,
    /// A snapshot's `snapshot.json`.
    Snapshot,
    /// The parts of the host that `config` reaches.
    Config,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Suspended => "suspended",
            Self::Snapshot => "snapshot",
            Self::Config => "config",
        }
    }
}

/// The text of the document at `path`, with its MAC as the last member.
///
/// # Errors
///
/// When the key does not exist and cannot be created, unless the path is trusted without.
pub(crate) fn sealed(kind: Kind, path: &Path, body: &impl Serialize) -> Result<String, FileError> {
    let text = serde_json::to_string_pretty(body).expect("it has only string keys");
    let members = serde_json::from_str(&text).expect("written just now");
    let mac = match mac(kind, canonical(&members).as_bytes()) {
        Err(_) if is_exempt(path) => return Ok(text + "\n"),
        mac => mac?,
    };
    let open = text.trim_end_matches('}').trim_end();
    Ok(format!("{open},\n  \"{MEMBER}\": \"{mac}\"\n}}\n"))
}

/// Replaces the MAC of the document at `path` by that of this user.
///
/// # Errors
///
/// When it cannot be read or written.
pub(crate) fn reseal(kind: Kind, path: &Path) -> Result<(), FileError> {
    let text = files::read_own(path)?.unwrap_or_default();
    match body::<Map<String, Value>>(&text) {
        Ok(members) => files::write(path, sealed(kind, path, &members)?.as_bytes(), PRIVATE),
        // A damaged one is reported where it is used.
        Err(_) => Ok(()),
    }
}

/// The document without its MAC.
///
/// # Errors
///
/// When it is not JSON of that layout.
pub(crate) fn body<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    let mut members: Map<String, Value> = serde_json::from_str(text)?;
    members.remove(MEMBER);
    serde_json::from_value(Value::Object(members))
}

/// Returns `true` when this user's k3s-vm has written the document at `path`.
///
/// # Errors
///
/// When the key cannot be read.
pub(crate) fn holds(kind: Kind, path: &Path, text: &str) -> Result<bool, FileError> {
    if is_exempt(path) {
        return Ok(true);
    }
    let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(text) else {
        return Ok(false);
    };
    match members.remove(MEMBER) {
        Some(Value::String(mac)) => verify(kind, canonical(&members).as_bytes(), &mac),
        _ => Ok(false),
    }
}

/// The MAC of `bytes`, in base64.
///
/// # Errors
///
/// When the key does not exist and cannot be created.
pub(crate) fn mac(kind: Kind, bytes: &[u8]) -> Result<String, FileError> {
    let mac = keyed(kind, &key()?, bytes).finalize();
    Ok(BASE64_STANDARD.encode(mac.into_bytes()))
}

/// Returns `true` for the MAC of `bytes`.
///
/// # Errors
///
/// When the key cannot be read.
pub(crate) fn verify(kind: Kind, bytes: &[u8], mac: &str) -> Result<bool, FileError> {
    let (Some(key), Ok(mac)) = (existing_key()?, BASE64_STANDARD.decode(mac)) else {
        return Ok(false);
    };
    Ok(keyed(kind, &key, bytes).verify_slice(&mac).is_ok())
}

/// Returns `true` for a path below one of [`TRUSTED_PATHS`].
pub(crate) fn is_exempt(path: &Path) -> bool {
    let listed = env::var_os(TRUSTED_PATHS).unwrap_or_default();
    env::split_paths(&listed).any(|it| it.is_absolute() && path.starts_with(it))
}

/// Creates the key unless there is one.
///
/// # Errors
///
/// When the user's config directory cannot be written, unless the path is trusted without.
pub fn require_key(path: &Path) -> Result<(), FileError> {
    match key() {
        Err(_) if is_exempt(path) => Ok(()),
        other => other.map(drop),
    }
}

/// Canonical, however the file is formatted.
fn canonical(members: &Map<String, Value>) -> String {
    serde_json::to_string(members).expect("it has only string keys")
}

fn keyed(kind: Kind, key: &[u8], bytes: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length will do");
    mac.update(kind.name().as_bytes());
    mac.update(b"\0");
    mac.update(bytes);
    mac
}

fn key_path() -> Result<PathBuf, FileError> {
    // Unit tests do not use the user's key.
    let home = if cfg!(test) {
        Some(env::temp_dir())
    } else {
        config_home()
    };
    let home = home.ok_or_else(|| {
        let error = io::Error::new(io::ErrorKind::NotFound, "there is no home directory");
        FileError::on("find", Path::new("~/.config/k3s-vm/key"))(error)
    })?;
    Ok(home.join("k3s-vm/key"))
}

fn existing_key() -> Result<Option<Vec<u8>>, FileError> {
    let path = key_path()?;
    let Some(text) = files::read_own(&path)? else {
        return Ok(None);
    };
    match BASE64_STANDARD.decode(text.trim()) {
        Ok(key) if key.len() == KEY_LENGTH => Ok(Some(key)),
        _ => Err(refused(&path, "it is not a key of 32 bytes in base64")),
    }
}

fn key() -> Result<Vec<u8>, FileError> {
    if let Some(key) = existing_key()? {
        return Ok(key);
    }
    let path = key_path()?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    create_private_dir(directory)?;
    let new: [u8; KEY_LENGTH] = rand::random();
    // Two commands that create it at once both use the first one.
    files::write_new(&path, (BASE64_STANDARD.encode(new) + "\n").as_bytes())?;
    existing_key()?.ok_or_else(|| FileError::on("read", &path)(io::ErrorKind::NotFound.into()))
}
