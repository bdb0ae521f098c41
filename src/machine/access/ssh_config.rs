//! The configuration of OpenSSH's client for a running VM, for scp, rsync and editors.

use std::path::Path;

use crate::{
    base::files::{self, PRIVATE},
    machine::{
        MachineError, State,
        control::{guest, keys},
    },
    project::Project,
};

/// A block for `~/.ssh/config`, for the host `host`, or else the VM's name. It pins the VM's host key in a file.
///
/// # Errors
///
/// When the VM does not run, or OpenSSH cannot take a path.
pub async fn ssh_config(project: &Project, host: Option<&str>) -> Result<String, MachineError> {
    let (record, _) = State::observe(project)?.running(project)?;
    let port = guest::ssh_port(project).await?;
    let known = known_hosts(project, record.name.as_str())?;
    let path = project.known_hosts();
    if files::read_if_exists(&path)?.as_ref() != Some(&known) {
        files::write(&path, known.as_bytes(), PRIVATE)?;
    }
    Ok(format!(
        "Host {host}\n  \
         HostName 127.0.0.1\n  \
         Port {port}\n  \
         User root\n  \
         IdentityFile {identity}\n  \
         IdentitiesOnly yes\n  \
         HostKeyAlias {name}\n  \
         UserKnownHostsFile {known_hosts}\n  \
         GlobalKnownHostsFile /dev/null\n  \
         StrictHostKeyChecking yes\n",
        host = host.unwrap_or(record.name.as_str()),
        name = record.name,
        identity = quoted(&project.client_key())?,
        known_hosts = quoted(&path)?,
    ))
}

/// The host key under the VM's name, since the port changes from start to start.
fn known_hosts(project: &Project, name: &str) -> Result<String, MachineError> {
    let path = project.host_key();
    let line = keys::load_key(path.clone())?
        .public_line()
        .map_err(|source| MachineError::Key { path, source })?;
    Ok(format!("{name} {line}\n"))
}

/// A path for ssh_config(5): `%` starts a token there, and `${` a variable, which cannot be escaped.
fn quoted(path: &Path) -> Result<String, MachineError> {
    match path.to_str() {
        Some(text) if !text.contains("${") && !text.contains('\n') => {
            let text = text.replace('%', "%%");
            let text = text.replace('\\', r"\\").replace('"', "\\\"");
            Ok(format!("\"{text}\""))
        }
        _ => Err(MachineError::Choice(format!(
            "cannot write {path:?} for OpenSSH: expected UTF-8 without line breaks and without ${{"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_openssh() {
        let told = |path: &str| quoted(Path::new(path)).ok();
        assert_eq!(told("/a b/c").as_deref(), Some("\"/a b/c\""));
        assert_eq!(told("/100%d").as_deref(), Some("\"/100%%d\""));
        assert_eq!(told("/a\"b\\c").as_deref(), Some(r#""/a\"b\\c""#));
        assert_eq!(told("/$HOME").as_deref(), Some("\"/$HOME\""));
        assert_eq!(told("/${HOME}"), None);
        assert_eq!(told("/a\nb"), None);
    }
}
