//! Projects of others: from a repository or an archive, from another user or another host. They are used once the user
//! trusts them.

use std::{fs, path::PathBuf};

use super::{
    Config, ConfigError, Project, Record, approval,
    seal::{self, Kind},
};
use crate::base::FileError;

/// The parts of the project that are not trusted, each fitting after the project's name; none in a trusted one.
///
/// # Errors
///
/// When the project or the user's key cannot be read.
pub fn findings(project: &Project) -> Result<Vec<String>, ConfigError> {
    let mut all = Vec::new();
    // A damaged record is reported where it is used.
    if let Ok(Some((record, false))) = Record::read(project) {
        let image = record.image.path.display();
        all.push(format!(
            "has a VM that your k3s-vm on this host did not create, based on {image}"
        ));
    }
    let config = Config::load(&project.config())?;
    all.extend(approval::unapproved(project, &config)?);
    Ok(all)
}

/// Trusts the project as it is: its VM, the memory and snapshots, and what its config reaches.
///
/// # Errors
///
/// When a file cannot be read or written.
pub fn adopt(project: &Project) -> Result<(), ConfigError> {
    let config = Config::load(&project.config())?;
    approval::approve(project, &config)?;
    for (kind, path) in documents(project)? {
        seal::reseal(kind, &path)?;
    }
    Ok(())
}

/// The record is last: with it, the VM is trusted.
fn documents(project: &Project) -> Result<Vec<(Kind, PathBuf)>, FileError> {
    let folder = project.snapshots();
    let snapshots = match fs::read_dir(&folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(FileError::on("list", &folder))?),
    };
    let notes = snapshots.into_iter().flatten().flatten();
    let mut all: Vec<_> = notes
        .map(|it| (Kind::Snapshot, it.path().join(super::snapshot::NOTE)))
        .collect();
    all.push((Kind::Suspended, project.suspended()));
    all.push((Kind::Record, project.record()));
    all.retain(|(_, path)| path.exists());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_user_is_found_and_adopted() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let project = Project::at(directory.path());
        fs::create_dir_all(project.directory()).expect("created");
        assert_eq!(findings(&project).expect("read"), Vec::<String>::new());
        let record = serde_json::json!({
            "schema": Record::schema(), "name": "k3s", "uuid": "u", "disk": "1GiB",
            "image": { "source": "s", "path": "/i", "digest": "0".repeat(64) },
            "release": { "version": "v", "binary": "/b", "airgap": null },
            "firmware": "bios", "api_port": 1, "kubeconfig": "k", "provisioned": true,
        });
        fs::write(project.record(), record.to_string()).expect("written");
        fs::write(project.config(), "mounts = [\"~:/h\"]\n").expect("written");
        let error = Record::load(&project).expect_err("of somebody else");
        assert!(error.to_string().contains("is not trusted"), "{error}");
        approval::load(&project).expect_err("not approved");
        let found = findings(&project).expect("read");
        assert_eq!(found[1], "mounts ~ at /h (read-write)");
        adopt(&project).expect("adopted");
        assert_eq!(findings(&project).expect("read"), Vec::<String>::new());
        let ours = Record::load(&project).expect("trusted").expect("there");
        approval::load(&project).expect("approved");

        let text = fs::read_to_string(project.record()).expect("read");
        fs::write(project.record(), text.replace("\"/i\"", "\"/j\"")).expect("written");
        Record::load(&project).expect_err("changed");
        ours.save(&project).expect("saved");
        Record::load(&project).expect("ours again");
        fs::copy(project.record(), project.suspended()).expect("copied");
        let text = fs::read_to_string(project.suspended()).expect("read");
        let path = project.suspended();
        assert!(!seal::holds(Kind::Suspended, &path, &text).expect("read"));
    }
}
