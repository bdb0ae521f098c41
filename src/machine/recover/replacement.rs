//! Replaces several files of the VM together: all of them or none.
//!
//! They are first written to a directory beside their places. Once that directory has its final name, the VM is the one
//! in the directory: whatever is killed from then on, the next command moves the rest.

use std::{fs, io::ErrorKind, path::PathBuf};

use crate::{
    base::{
        FileError,
        files::{self, PRIVATE},
    },
    k3s::release::Version,
    machine::model::staging_dir::{self, Draft},
    project::{Config, Project, Record, Suspended},
};

pub(crate) fn draft_of(project: &Project) -> PathBuf {
    project.restoring().with_extension("new")
}

/// The config, if it names another release or size than the record, with which no start would agree.
pub(crate) fn note_config(
    project: &Project,
    record: &Record,
    draft: &Draft,
) -> Result<(), FileError> {
    let path = project.config();
    // One that cannot be read speaks for itself at the next start.
    let Some(text) = files::read_own(&path)? else {
        return Ok(());
    };
    let Ok(config) = Config::parse(&text) else {
        return Ok(());
    };
    let version = &record.release.version;
    let names_one = |it: &String| it.parse::<Version>().is_ok();
    let agreeing = Config {
        k3s_version: config.k3s_version.as_ref().map(|it| match names_one(it) {
            true => version.clone(),
            false => it.clone(),
        }),
        disk: config.disk.map(|_| record.disk),
        ..config.clone()
    };
    match agreeing.merged_into(&text) {
        Ok(text) if agreeing != config => files::write(
            &draft.join(staging_dir::name_of(&path)),
            text.as_bytes(),
            PRIVATE,
        ),
        _ => Ok(()),
    }
}

/// Writes the record, and the config that agrees with it: both, or none.
///
/// # Errors
///
/// When they cannot be written.
pub(crate) fn replace_record(project: &Project, record: &Record) -> Result<(), FileError> {
    let draft = Draft::create(draft_of(project))?;
    note_config(project, record, &draft)?;
    record.save_as(
        &draft.join(staging_dir::name_of(&project.record())),
        project,
    )?;
    draft.finish(&project.restoring())?;
    put_in_place(project)
}

/// Finishes what died when it was to be finished, and clears what was not.
///
/// # Errors
///
/// When a file cannot be moved.
pub(crate) fn finish(project: &Project) -> Result<(), FileError> {
    staging_dir::remove(&draft_of(project))?;
    if project.restoring().exists() {
        tracing::info!("completing an interrupted command");
        put_in_place(project)?;
    }
    Ok(())
}

pub(crate) fn put_in_place(project: &Project) -> Result<(), FileError> {
    let (folder, directory) = (project.restoring(), project.directory());
    if folder.join(staging_dir::name_of(&project.disk())).exists() {
        // Memory of before is never to lie beside another disk.
        Suspended::discard(project)?;
    }
    // Last what says that there is memory.
    for place in [
        project.disk(),
        project.uefi_variables(),
        project.config_archive(),
        project.config(),
        project.record(),
        project.memory(),
        project.suspended(),
    ] {
        match fs::rename(folder.join(staging_dir::name_of(&place)), &place) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            renamed => renamed.map_err(FileError::on("rename a file to", &place))?,
        }
        files::sync_directory(&directory)?;
    }
    fs::remove_dir(&folder).map_err(FileError::on("remove", &folder))?;
    files::sync_directory(&directory)
}
