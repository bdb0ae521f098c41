//! The backing file of a new VM's disk: a template, a template that this VM will make, or the base image.

use std::path::PathBuf;

use crate::{
    base::files::{self, PRIVATE, free_space},
    image::{
        self, BaseImage, Cache, Format, TemplateState,
        template::{self, Level},
    },
    machine::{
        Machine, MachineError,
        cache::{assets::Assets, references},
        launch::{Startup, disk_state::FIRST_SPACE},
        template::keys,
    },
    project::Record,
};

/// The backing image of a new VM's disk: a template, a template that this VM creates, or the base image itself.
///
/// # Errors
///
/// When the host does not report what a template depends on.
pub(crate) async fn choose_backing_image(
    startup: Startup<'_>,
    assets: &Assets,
    record: &Record,
    unfinished: bool,
) -> Result<BaseImage, MachineError> {
    let Startup { machine, spec, .. } = startup;
    let on = |path: PathBuf| BaseImage {
        path,
        format: Format::Qcow2,
        ..assets.image.clone()
    };
    let begun = &record.image.path;
    if unfinished && machine.project.disk().exists() && begun.exists() {
        return Ok(match template::state(begun) {
            None => assets.image.clone(),
            Some(_) => on(begun.clone()),
        });
    }
    let cache = Cache::new(machine.cache.clone());
    let key = keys::installed(assets, &record.firmware);
    // QEMU saves no memory of a guest with mounts, and a template has memory.
    let prepares = spec.mounts.is_empty();
    if spec.share_identity {
        let key = keys::ready(startup, &key).await?;
        let found = cache.find_template(&key);
        if found.is_none() && !prepares {
            return Ok(assets.image.clone());
        }
        return Ok(on(found.unwrap_or_else(|| {
            cache.new_template(&key, &record.uuid, Level::Ready)
        })));
    }
    if let Some(path) = cache.find_template(&key) {
        tracing::info!("using a template");
        return Ok(on(path));
    }
    if !prepares {
        return Ok(assets.image.clone());
    }
    Ok(on(cache.new_template(&key, &record.uuid, Level::Installed)))
}

/// Creates the disk of a template, if this VM creates one. Returns `false` when the cache has no space or permission
/// for it: this VM then boots its own disk.
///
/// # Errors
///
/// When it cannot be written to a cache that can be written.
pub(crate) fn ensure_backing_disk(
    image: &BaseImage,
    record: &Record,
) -> Result<bool, MachineError> {
    let path = &record.image.path;
    if template::state(path) != Some(TemplateState::Private) || path.exists() {
        return Ok(true);
    }
    let whole = image::plan(image, record.disk)?;
    let folder = path.parent().unwrap_or(path);
    let written = files::create_private_dir(folder).and_then(|()| {
        if free_space(folder)?.bytes < FIRST_SPACE {
            return Ok(false);
        }
        files::write(path, &whole, PRIVATE)?;
        Ok(true)
    });
    match written {
        Err(error) if error.is_forbidden() => Ok(false),
        result => Ok(result?),
    }
}

/// Deletes an unpublished disk in the cache that only this VM has written to, unless a copy of its project needs it.
///
/// # Errors
///
/// When it cannot be removed.
pub(crate) fn discard(machine: &Machine, record: &Record) -> Result<(), MachineError> {
    let path = &record.image.path;
    if template::state(path) == Some(TemplateState::Private)
        && !references::others_need(machine, path)
    {
        template::remove(path)?;
    }
    Ok(())
}
