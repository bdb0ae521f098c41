//! The files of the cache that a VM needs.

use std::path::PathBuf;

use crate::{
    image::template,
    project::{Project, Record, Suspended, snapshot},
};

/// The files of the cache that a VM and its snapshots need, sorted.
pub(crate) fn needs(project: &Project, record: &Record) -> Vec<PathBuf> {
    let mut needs = vec![record.image.path.clone(), record.release.binary.clone()];
    if template::state(&record.image.path).is_some() {
        needs.extend(template::image_below(
            &record.image.path,
            record.image.digest,
        ));
    }
    let suspended = Suspended::exists(project);
    let mut resumes = suspended;
    // A damaged snapshot needs nothing: it cannot be restored.
    for snapshot in snapshot::list(project).unwrap_or_default() {
        let Ok(snapshot) = snapshot.snapshot else {
            continue;
        };
        resumes |= snapshot.memory.is_some();
        needs.extend([snapshot.image.path, snapshot.release.binary]);
        // A guest resumes with all disks that it had.
        needs.extend(snapshot.memory.and(snapshot.release.airgap));
    }
    if !record.provisioned || suspended {
        needs.extend(record.release.airgap.clone());
    }
    // The disks are those of the first boot, whatever was installed since.
    if resumes && let Some(first) = &record.first_release {
        needs.push(first.binary.clone());
        needs.extend(first.airgap.clone());
    }
    needs.sort();
    needs.dedup();
    needs
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;
    use crate::project::{
        Snapshot,
        snapshot::Content,
        suspended::{MachineAbi, Memory},
    };

    fn record(release: &str, airgap: &str) -> Record {
        let record = json!({
            "schema": 3, "name": "k3s", "uuid": "u", "disk": "1GiB",
            "image": { "source": "s", "path": "/image", "digest": "0".repeat(64) },
            "release": { "version": "v", "binary": release, "airgap": airgap },
            "firmware": "bios", "api_port": 1, "kubeconfig": "k", "provisioned": true,
        });
        Record::parse(&record.to_string()).expect("sound")
    }

    #[test]
    fn the_files_of_snapshots_are_needed_as_well() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let project = Project::at(directory.path());
        let now = record("/now", "/now-airgap");
        assert_eq!(needs(&project, &now), ["/image", "/now"].map(PathBuf::from));
        let memory = Memory {
            origin: MachineAbi {
                qemu: "7.2.0".to_owned(),
                arguments: Vec::new(),
                processor: None,
            },
            length: 1,
            checksum: 1,
        };
        let disk = Content {
            length: 1,
            checksum: 1,
        };
        for (name, record, memory) in [
            ("stopped", record("/one", "/one-airgap"), None),
            ("running", record("/two", "/two-airgap"), Some(memory)),
        ] {
            let folder = snapshot::folder(&project, &name.parse().expect("a name"));
            fs::create_dir_all(&folder).expect("made");
            let made = Snapshot::new(&record, 1, disk, memory);
            made.save(&folder).expect("written");
        }
        let expected = ["/image", "/now", "/one", "/two", "/two-airgap"];
        assert_eq!(needs(&project, &now), expected.map(PathBuf::from));
        let upgraded = Record {
            first_release: Some(record("/first", "/first-airgap").release),
            ..now
        };
        let memory_of_first_boot = ["/first", "/first-airgap"].map(PathBuf::from);
        let needs = needs(&project, &upgraded);
        assert!(memory_of_first_boot.iter().all(|it| needs.contains(it)));
    }
}
