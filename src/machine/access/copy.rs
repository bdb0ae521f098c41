//! `cp`: files and directories between the host and the guest, with the names that `docker cp` would give them.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    base::{FileError, Progress},
    guest::{CopyError, Ssh, copy::RemotePathKind},
    machine::{MachineError, access::shell},
    project::Project,
};

/// Copies `sources` of the host to `target` in the guest. Returns what was left out.
///
/// # Errors
///
/// When the VM does not run, a source is not there, or the guest does not take one.
pub async fn to_guest(
    project: &Project,
    sources: &[PathBuf],
    target: &str,
    progress: &Arc<dyn Progress>,
) -> Result<Vec<String>, MachineError> {
    for source in sources {
        let shown = || source.display().to_string();
        match fs::metadata(source) {
            Ok(it) if it.is_file() || it.is_dir() => {}
            Ok(_) => return Err(CopyError::Special(shown()).into()),
            Err(_) => return Err(CopyError::NotOnHost(shown()).into()),
        }
    }
    let ssh = shell::connect(project).await?;
    let mut left_out = Vec::new();
    for source in sources {
        let text = utf8(source)?;
        let there = ssh.path_kind(target).await?;
        let many = sources.len() > 1;
        let (directory, target) = in_guest(text, source.is_dir(), target, there, many)?;
        left_out.extend(
            ssh.send(source, (&directory, &target), text, progress)
                .await?,
        );
    }
    ssh.close().await;
    Ok(left_out)
}

/// The place of a source in the guest, and the directory in which it is assembled.
fn in_guest(
    source: &str,
    is_folder: bool,
    target: &str,
    there: RemotePathKind,
    many: bool,
) -> Result<(String, String), CopyError> {
    let shown = || target.to_owned();
    match there {
        RemotePathKind::Folder => Ok(match own_name(source) {
            Some(name) => (target.to_owned(), format!("{target}/{name}")),
            None => (target.to_owned(), target.to_owned()),
        }),
        RemotePathKind::File if is_folder || many || target.ends_with('/') => {
            Err(CopyError::NoFolder(shown()))
        }
        RemotePathKind::Free if many || (target.ends_with('/') && !is_folder) => {
            Err(CopyError::NotInGuest(shown()))
        }
        RemotePathKind::Nowhere => Err(CopyError::NotInGuest(parent(target))),
        RemotePathKind::File | RemotePathKind::Free => {
            let target = target.trim_end_matches('/');
            Ok((parent(target), target.to_owned()))
        }
    }
}

/// As dirname(1) has it.
fn parent(path: &str) -> String {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
        None => ".".to_owned(),
    }
}

/// The name of a copy in a directory; `None` when only the contents are copied.
fn own_name(source: &str) -> Option<&str> {
    let name = source.trim_end_matches('/');
    let name = name.rsplit('/').next().unwrap_or(name);
    (!["", ".", ".."].contains(&name)).then_some(name)
}

fn utf8(path: &Path) -> Result<&str, MachineError> {
    path.to_str()
        .ok_or_else(|| MachineError::Choice(format!("cannot copy {path:?}: its name is not UTF-8")))
}

/// Copies `sources` of the guest to `target` on the host. Returns what was left out or may be incomplete.
///
/// # Errors
///
/// When the VM does not run, a source is not there, or the host does not take one.
pub async fn to_host(
    project: &Project,
    sources: &[String],
    target: &Path,
    progress: &Arc<dyn Progress>,
) -> Result<Vec<String>, MachineError> {
    let ssh = shell::connect(project).await?;
    let mut warnings = Vec::new();
    for source in sources {
        warnings.extend(fetch(&ssh, source, target, sources.len() > 1, progress).await?);
    }
    ssh.close().await;
    Ok(warnings)
}

async fn fetch(
    ssh: &Ssh,
    source: &str,
    target: &Path,
    many: bool,
    progress: &Arc<dyn Progress>,
) -> Result<Vec<String>, CopyError> {
    let shown = || target.display().to_string();
    let slash = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    let (directory, whole) = match fs::metadata(target) {
        Ok(metadata) if metadata.is_dir() => {
            // Without links, so that a copy can be merged into it.
            let directory = fs::canonicalize(target).map_err(FileError::on("read", target))?;
            let whole = own_name(source).map_or(directory.clone(), |name| directory.join(name));
            (directory, whole)
        }
        Ok(_) if many || slash => return Err(CopyError::NoFolder(shown())),
        Ok(metadata) if !metadata.is_file() => return Err(CopyError::Special(shown())),
        Ok(_) => {
            let whole = fs::canonicalize(target).map_err(FileError::on("read", target))?;
            let directory = whole.parent().unwrap_or(Path::new("/")).to_owned();
            (directory, whole)
        }
        Err(_) if many => return Err(CopyError::NotOnHost(shown())),
        Err(_) => {
            let parent = target.parent().filter(|it| !it.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            if !parent.is_dir() {
                return Err(CopyError::NotOnHost(parent.display().to_string()));
            }
            (parent.to_owned(), target.to_owned())
        }
    };
    let (staged, mut warnings) = ssh.fetch(source, &directory, source, progress).await?;
    if staged.is_folder && whole.exists() && !whole.is_dir() {
        return Err(CopyError::NoFolder(whole.display().to_string()));
    }
    if !staged.is_folder && slash && !target.is_dir() {
        return Err(CopyError::NotOnHost(shown()));
    }
    warnings.extend(staged.place(&whole)?);
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_named_like_those_of_docker_cp() {
        use RemotePathKind::{File, Folder, Free, Nowhere};
        let to = |source, is_folder, target, there| {
            in_guest(source, is_folder, target, there, false)
                .ok()
                .map(|(directory, target)| format!("{directory} {target}"))
        };
        assert_eq!(
            to("a/x", false, "/srv", Folder).as_deref(),
            Some("/srv /srv/x")
        );
        assert_eq!(
            to("a/x/", true, "/srv", Folder).as_deref(),
            Some("/srv /srv/x")
        );
        assert_eq!(
            to("a/x/.", true, "/srv", Folder).as_deref(),
            Some("/srv /srv")
        );
        assert_eq!(to(".", true, "/srv", Folder).as_deref(), Some("/srv /srv"));
        assert_eq!(to("x", false, "/srv", File).as_deref(), Some("/ /srv"));
        assert_eq!(to("x", true, "/srv", File), None);
        assert_eq!(to("x", false, "srv", Free).as_deref(), Some(". srv"));
        assert_eq!(to("x", true, "/a/new/", Free).as_deref(), Some("/a /a/new"));
        assert_eq!(to("x", false, "/a/new/", Free), None);
        assert_eq!(to("x", false, "/a/new", Nowhere), None);
        assert!(in_guest("x", false, "/new", Free, true).is_err());
    }
}
