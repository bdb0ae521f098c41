//! The VM's kubeconfig between starts: it is at the configured path and refers to this VM only, also after the project
//! was moved or copied.

use std::{env, path::Path};

use crate::{
    base::{
        Name,
        files::{self, PRIVATE},
    },
    k3s::{Kubeconfig, KubeconfigError},
    machine::MachineError,
    project::{Project, Record},
};

/// The VM's kubeconfig, if it refers to this VM: that of a copied project may refer to the other one.
///
/// # Errors
///
/// [`MachineError::Kubeconfig`] when it is missing, is damaged, or leads elsewhere.
pub fn of(record: &Record) -> Result<Kubeconfig, MachineError> {
    let unusable = |source| MachineError::Kubeconfig {
        path: record.kubeconfig.clone(),
        source,
    };
    let yaml = files::read_if_exists(&record.kubeconfig)?
        .ok_or_else(|| unusable(KubeconfigError::Missing))?;
    let kubeconfig = Kubeconfig::parse(&yaml).map_err(unusable)?;
    kubeconfig.require_port(record.api_port).map_err(unusable)?;
    Ok(kubeconfig)
}

/// Saves the port of the coming start, in the kubeconfig as well: until k3s writes a new one, the old one must not
/// refer to a program that uses the old port now.
///
/// # Errors
///
/// When one of them cannot be written.
pub fn announce(project: &Project, record: &Record) -> Result<(), MachineError> {
    record.save(project)?;
    let Ok(Some(yaml)) = files::read_if_exists(&record.kubeconfig) else {
        return Ok(());
    };
    let former = Kubeconfig::parse(&yaml).ok().filter(|former| {
        former.require_port(record.api_port).is_err()
            && check_place(project, &record.kubeconfig, &record.name).is_ok()
    });
    match former.map(|it| it.for_host(&record.name, record.api_port, &project.place())) {
        Some(Ok(kubeconfig)) => write(project, record, &kubeconfig),
        // An unusable kubeconfig refers to nothing, and another program's is not changed.
        _ => Ok(()),
    }
}

/// Moves a usable kubeconfig to `place`, unless it is there.
///
/// # Errors
///
/// When it cannot be written there or removed here.
pub fn move_to(project: &Project, record: &mut Record, place: &Path) -> Result<(), MachineError> {
    if record.kubeconfig == place {
        return Ok(());
    }
    let kubeconfig = of(record)?;
    let former = std::mem::replace(&mut record.kubeconfig, place.to_owned());
    write(project, record, &kubeconfig)?;
    remove(project, &former, &record.name)?;
    Ok(record.save(project)?)
}

/// Refuses a file outside of the project that belongs to a VM of the same name: an original of this project, or a copy.
/// A project that was moved away has left its file to this one.
///
/// # Errors
///
/// [`MachineError::KubeconfigOfAnother`] names the other project.
fn check_owner(project: &Project, path: &Path, owner: Option<&Path>) -> Result<(), MachineError> {
    let Some(owner) = owner.map(Project::at_place) else {
        return Ok(());
    };
    // In the project it can only belong to another of its VMs.
    let elsewhere = path.starts_with(project.root()) && owner.root() != project.root();
    if elsewhere || owner == *project || !owner.record().exists() {
        return Ok(());
    }
    Err(MachineError::KubeconfigOfAnother {
        path: path.to_owned(),
        project: owner.place(),
    })
}

/// Checks that the kubeconfig may be written to `path`: it is free or ours, and not the user's own.
///
/// # Errors
///
/// [`MachineError::OwnKubeconfig`], [`MachineError::ForeignKubeconfig`] and [`MachineError::KubeconfigOfAnother`].
pub fn check_place(project: &Project, path: &Path, name: &Name) -> Result<(), MachineError> {
    if env::home_dir().is_some_and(|home| same_place(&home.join(".kube/config"), path)) {
        return Err(MachineError::OwnKubeconfig(path.to_owned()));
    }
    let foreign = || MachineError::ForeignKubeconfig {
        path: path.to_owned(),
        name: name.clone(),
    };
    match files::read_if_exists(path)? {
        None => Ok(()),
        Some(text) if text.trim().is_empty() => Ok(()),
        Some(text) => match Kubeconfig::parse(&text) {
            Ok(kubeconfig) if kubeconfig.belongs_to(name) => {
                check_owner(project, path, kubeconfig.project())
            }
            _ => Err(foreign()),
        },
    }
}

/// Returns `true` when both are the same name in the same directory, through any links.
pub(crate) fn same_place(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let directory = path.parent()?.canonicalize().ok()?;
        Some(directory.join(path.file_name()?))
    };
    one == other || place(one).is_some_and(|one| place(other) == Some(one))
}

/// Writes the kubeconfig to the path in the record.
///
/// # Errors
///
/// Those of [`check_place`], and when it cannot be written.
pub fn write(
    project: &Project,
    record: &Record,
    kubeconfig: &Kubeconfig,
) -> Result<(), MachineError> {
    let path = record.kubeconfig.as_path();
    check_place(project, path, &record.name)?;
    let unusable = |source| MachineError::Kubeconfig {
        path: path.to_owned(),
        source,
    };
    let yaml = kubeconfig.to_yaml().map_err(unusable)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    files::create_private_dir(directory)?;
    let ignore = directory.join(".gitignore");
    if directory.file_name().is_some_and(|name| name == ".kube") && !ignore.exists() {
        files::write(&ignore, b"*\n", PRIVATE)?;
    }
    Ok(files::write(path, yaml.as_bytes(), PRIVATE)?)
}

/// Returns `true` when the VM's kubeconfig is at `path`. An empty file may be anyone's.
fn is_ours(project: &Project, path: &Path, name: &Name) -> bool {
    let is_empty = || path.metadata().is_ok_and(|it| it.len() == 0);
    check_place(project, path, name).is_ok() && !is_empty()
}

/// Removes the project's kubeconfig if it is the VM's. Another file is kept.
///
/// # Errors
///
/// When it cannot be removed.
pub fn remove(project: &Project, path: &Path, name: &Name) -> Result<(), MachineError> {
    if !is_ours(project, path, name) {
        return Ok(());
    }
    files::remove_if_exists(path)?;
    if let Some(directory) = path
        .parent()
        .filter(|directory| directory.ends_with(".kube"))
    {
        let ignore = directory.join(".gitignore");
        let only_ours = std::fs::read_dir(directory).is_ok_and(|entries| {
            entries
                .flatten()
                .all(|entry| entry.path() == ignore || entry.file_name() == "cache")
        });
        if only_ours && files::read(&ignore).is_ok_and(|text| text == b"*\n") {
            files::remove_if_exists(&ignore)?;
            let _ = std::fs::remove_dir(directory);
        }
    }
    Ok(())
}
