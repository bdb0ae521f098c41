//! The machine's kubeconfig between the starts: it leads to this machine and to no other one, also where the project was
//! moved or copied, and lies where the config says.

use std::path::Path;

use super::{MachineError, ready};
use crate::{
    base::files,
    cluster::{Kubeconfig, KubeconfigError},
    project::{Project, Record},
};

/// The machine's kubeconfig, if it leads to this machine: that of a copied project may lead to the other one.
///
/// # Errors
///
/// [`MachineError::Kubeconfig`] when there is none, it is damaged, or it leads elsewhere.
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

/// Saves the port of the coming start, in the kubeconfig as well: until the guest gives a fresh one, the former one must
/// not lead to whoever has the former port now.
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
            && ready::check_place(project, &record.kubeconfig, &record.name).is_ok()
    });
    match former.map(|it| it.for_host(&record.name, record.api_port, project.root())) {
        Some(Ok(kubeconfig)) => ready::write(project, record, &kubeconfig),
        // What cannot be used leads nowhere, and what is not ours is not touched.
        _ => Ok(()),
    }
}

/// Puts a usable kubeconfig at another place; the one at the former place goes.
///
/// # Errors
///
/// When it cannot be written there or removed here.
pub fn move_to(project: &Project, record: &mut Record, place: &Path) -> Result<(), MachineError> {
    let kubeconfig = of(record)?;
    let former = std::mem::replace(&mut record.kubeconfig, place.to_owned());
    ready::write(project, record, &kubeconfig)?;
    ready::remove(project, &former, &record.name)?;
    Ok(record.save(project)?)
}

/// A file outside of the project may be of a machine of the same name: the one of which this project is a copy, or that
/// is a copy of this one. A project that was moved away has left its file to the one that it is now.
///
/// # Errors
///
/// [`MachineError::TakenKubeconfig`] names the other project.
pub fn check_owner(
    project: &Project,
    path: &Path,
    owner: Option<&Path>,
) -> Result<(), MachineError> {
    let Some(owner) = owner.filter(|_| !path.starts_with(project.root())) else {
        return Ok(());
    };
    if owner == project.root() || !Project::at(owner).record().exists() {
        return Ok(());
    }
    Err(MachineError::TakenKubeconfig {
        path: path.to_owned(),
        project: owner.to_owned(),
    })
}
