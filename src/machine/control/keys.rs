//! The SSH keys of a VM: its own client key, and the guest's host key.

use std::path::PathBuf;

use crate::{
    base::files::{self, PRIVATE},
    guest::KeyPair,
    machine::MachineError,
};

/// The key in `path`, created if it is missing.
///
/// # Errors
///
/// When it is damaged or cannot be written.
pub fn ensure_key(path: PathBuf, comment: &str) -> Result<KeyPair, MachineError> {
    if path.exists() {
        return crate::machine::control::keys::load_key(path);
    }
    let unusable = |source| MachineError::Key {
        path: path.clone(),
        source,
    };
    let key = KeyPair::generate(comment).map_err(unusable)?;
    files::write(&path, key.to_pem().map_err(unusable)?.as_bytes(), PRIVATE)?;
    Ok(key)
}

/// A key of the VM.
///
/// # Errors
///
/// When the file is missing or damaged.
pub fn load_key(path: PathBuf) -> Result<KeyPair, MachineError> {
    match files::read_own(&path)? {
        None => Err(MachineError::Gone { what: "key", path }),
        Some(pem) => KeyPair::parse(&pem).map_err(|source| MachineError::Key { path, source }),
    }
}
