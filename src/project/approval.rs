//! What a project's config reaches on the host needs this user's approval: mounted directories, files that are read or
//! written, images and downloads.
//!
//! The flags of a command are an approval. A config that another user wrote, or that was edited by hand, is approved
//! with `k3s-vm trust`. Approvals are kept in `.k3s-vm/approved`: a MAC of what is reached in each line, the newest last.

use super::{
    Config, ConfigError, Project,
    seal::{self, Kind},
};
use crate::base::{
    FileError,
    files::{self, PRIVATE},
};

/// The number of approvals that are kept, for former configs.
const KEPT: usize = 16;

/// The project's config, if all that it reaches on the host is approved.
///
/// # Errors
///
/// [`ConfigError::Untrusted`] lists what is not approved.
pub fn load(project: &Project) -> Result<Config, ConfigError> {
    let config = Config::load(&project.config())?;
    let reaches = unapproved(project, &config)?;
    if reaches.is_empty() {
        return Ok(config);
    }
    Err(ConfigError::Untrusted {
        path: project.config(),
        reaches,
    })
}

/// Saves the choices to the project's config, and approves them.
///
/// # Errors
///
/// When the file is not TOML or cannot be written.
pub fn save(project: &Project, config: &Config) -> Result<(), ConfigError> {
    let path = project.config();
    let (text, changed) = config.merged_into_file(&path)?;
    let merged = Config::parse(&text).map_err(|message| ConfigError::Invalid {
        path: path.clone(),
        message,
    })?;
    approve(project, &merged)?;
    if changed {
        files::write(&path, text.as_bytes(), PRIVATE)?;
    }
    Ok(())
}

/// Approves what the config reaches.
///
/// # Errors
///
/// When the project or the user's config directory cannot be written.
pub fn approve(project: &Project, config: &Config) -> Result<(), FileError> {
    let reaches = reaches(project, config);
    if reaches.is_empty() || is_approved(project, &reaches)? {
        return Ok(());
    }
    let path = project.approved();
    let mac = seal::mac(Kind::Config, text(&reaches).as_bytes())?;
    let known = files::read_own(&path)?.unwrap_or_default();
    let mut lines: Vec<&str> = known.lines().chain([mac.as_str()]).collect();
    lines.drain(..lines.len().saturating_sub(KEPT));
    files::write(&path, (lines.join("\n") + "\n").as_bytes(), PRIVATE)
}

/// The parts of the host that the config reaches without approval.
///
/// # Errors
///
/// When the approvals or the key cannot be read.
pub fn unapproved(project: &Project, config: &Config) -> Result<Vec<String>, FileError> {
    let reaches = reaches(project, config);
    if reaches.is_empty() || is_approved(project, &reaches)? {
        return Ok(Vec::new());
    }
    Ok(reaches)
}

fn is_approved(project: &Project, reaches: &[String]) -> Result<bool, FileError> {
    if seal::is_exempt(&project.config()) {
        return Ok(true);
    }
    let known = files::read_own(&project.approved())?.unwrap_or_default();
    for mac in known.lines() {
        if seal::verify(Kind::Config, text(reaches).as_bytes(), mac)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn text(reaches: &[String]) -> String {
    reaches.join("\n")
}

/// The parts of the host that the config reaches, in short phrases; with paths as in the config, so that they are the
/// same in a project that was moved or copied.
fn reaches(project: &Project, config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    for mount in config.mounts.iter().flatten() {
        let how = if mount.read_only {
            "read-only"
        } else {
            "read-write"
        };
        all.push(format!("mounts {} at {} ({how})", mount.host, mount.guest));
    }
    if let Some(image) = &config.image
        && (image.contains('/') || image.contains(':'))
    {
        all.push(format!("boots the image {image}"));
    }
    if let Some(mirror) = &config.k3s_mirror {
        all.push(format!("downloads k3s from {mirror}"));
    }
    if let Some(access) = config.host_access.as_ref().filter(|it| !it.is_none()) {
        all.push(format!(
            "lets the guest reach this host's loopback: {access}"
        ));
    }
    if let Some(kubeconfig) = &config.kubeconfig
        && project.resolve(kubeconfig) != project.default_kubeconfig()
    {
        all.push(format!("writes the kubeconfig to {}", kubeconfig.display()));
    }
    let files = config.k3s.manifests.iter().flatten();
    let files = files
        .chain(&config.k3s.registries)
        .chain(config.network.ca.iter().flatten());
    all.extend(files.map(|file| format!("reads {}", file.display())));
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn only_choices_that_reach_the_host_are_listed() {
        let project = Project::at(Path::new("/p"));
        let of = |text: &str| reaches(&project, &Config::parse(text).expect(text));
        let harmless = "cpus = 3\nimage = \"debian-13\"\nports = [\"8080:80\"]\nisolated = false\n\
            kubeconfig = \".kube/config\"\n[k3s]\nargs = [\"--flannel-backend=host-gw\"]\n";
        assert_eq!(of(harmless), Vec::<String>::new());
        insta::assert_snapshot!(
            of("mounts = [\"~:/h\", \"./src:/src:ro\"]\nimage = \"./x.img\"\nk3s_mirror = \"http://192.0.2.1\"\n\
                kubeconfig = \"/etc/x\"\nhost_access = \"5432,80\"\n[k3s]\nmanifests = [\"~/.ssh\"]\nregistries = \"r.yaml\"\n\
                [network]\nca = [\"ca.pem\"]\n").join("\n"),
            @"
        mounts ~ at /h (read-write)
        mounts ./src at /src (read-only)
        boots the image ./x.img
        downloads k3s from http://192.0.2.1
        lets the guest reach this host's loopback: 80,5432
        writes the kubeconfig to /etc/x
        reads ~/.ssh
        reads r.yaml
        reads ca.pem
        "
        );
    }
}
