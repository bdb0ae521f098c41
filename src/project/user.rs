//! The user's choices for all projects: a config like that of a project, with a lower precedence than flags and the
//! project's config.

use std::path::{Path, PathBuf};

use toml_edit::Document;

use super::{Config, ConfigError, Project, approval};
use crate::base::{files, user_dirs::config_home};

/// The keys that two VMs cannot share.
const OF_ONE_PROJECT: [&str; 3] = ["api_port", "kubeconfig", "ports"];

/// `k3s-vm/config` in the user's config directory.
pub fn path() -> Option<PathBuf> {
    Some(config_home()?.join("k3s-vm/config"))
}

/// The user's choices. For an existing VM only those that can change: another default image does not contradict it.
///
/// # Errors
///
/// [`ConfigError::Invalid`] names the line and the key.
pub fn config(made: bool) -> Result<Config, ConfigError> {
    let Some(path) = path() else {
        return Ok(Config::default());
    };
    let config = load(&path)?;
    Ok(if made { changeable(config) } else { config })
}

/// The config of an existing VM: the project's, over what the user chose for all projects.
///
/// # Errors
///
/// Those of both files.
pub fn chosen(project: &Project) -> Result<Config, ConfigError> {
    Ok(Config::load(&project.config())?.over(config(true)?))
}

/// The choices for a command that acts on them.
///
/// # Errors
///
/// [`ConfigError::Untrusted`] when it reaches what is not approved.
pub fn trusted(project: &Project) -> Result<Config, ConfigError> {
    Ok(approval::load(project)?.over(config(true)?))
}

fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = files::read_if_exists(path)?.unwrap_or_default();
    parse(&text).map_err(|message| ConfigError::Invalid {
        path: path.to_owned(),
        message,
    })
}

fn parse(text: &str) -> Result<Config, String> {
    let config = Config::parse(text)?;
    for key in OF_ONE_PROJECT {
        if let Some(line) = line_of(text, key) {
            return Err(format!(
                "line {line}: {key} cannot be the same for all projects; it belongs into the .k3s-vm/config of one"
            ));
        }
    }
    let relative = |key: &str| {
        let line = line_of(text, key).unwrap_or_default();
        Err(format!(
            "line {line}: {key} has a relative path, which would be another file in every project"
        ))
    };
    if config.image.as_deref().is_some_and(is_relative) {
        return relative("image");
    }
    let mounts = config.mounts.iter().flatten();
    if mounts
        .map(|it| &it.host)
        .any(|it| !it.starts_with(['/', '~']))
    {
        return relative("mounts");
    }
    let k3s = config
        .k3s
        .manifests
        .iter()
        .flatten()
        .chain(&config.k3s.registries);
    if k3s.into_iter().any(|it| is_relative_path(it)) {
        return relative("k3s");
    }
    if config
        .network
        .ca
        .iter()
        .flatten()
        .any(|it| is_relative_path(it))
    {
        return relative("network");
    }
    Ok(config)
}

/// A path with a tilde is in the home directory.
fn is_relative_path(path: &Path) -> bool {
    path.is_relative() && !path.starts_with("~")
}

/// As in the config of a project: a text without a slash is an alias.
fn is_relative(image: &str) -> bool {
    let is_url = image.contains("://") || image.starts_with("file:");
    image.contains('/') && is_relative_path(Path::new(image)) && !is_url
}

fn line_of(text: &str, key: &str) -> Option<usize> {
    let document = Document::parse(text).ok()?;
    let (key, _) = document.get_key_value(key)?;
    Some(text[..key.span()?.start].matches('\n').count() + 1)
}

fn changeable(config: Config) -> Config {
    Config {
        disk: None,
        image: None,
        image_sha256: None,
        k3s_version: None,
        firmware: None,
        ..config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_keys_are_rejected_with_their_line() {
        for (text, line, word) in [
            ("cpus = 2\napi_port = 6443\n", "line 2", "api_port"),
            ("\n# mine\nports = [\"8080:80\"]\n", "line 3", "ports"),
            ("kubeconfig = \"k\"", "line 1", "kubeconfig"),
            ("image = \"./mine.img\"", "line 1", "relative"),
            ("mounts = [\"./src:/src\"]", "line 1", "relative"),
            (
                "cpus = 2\n[k3s]\nregistries = \"r.yaml\"",
                "line 2",
                "relative",
            ),
            (
                "[network]\nca = [\"/a.pem\", \"b.pem\"]",
                "line 1",
                "relative",
            ),
            ("cpus = 2\nmemry = \"4GiB\"\n", "line 2", "memry"),
        ] {
            let message = parse(text).expect_err(text);
            assert!(
                message.contains(line) && message.contains(word),
                "{message}"
            );
        }
    }

    #[test]
    fn another_default_image_does_not_contradict_a_vm() {
        let config = parse("image = \"debian-13\"\ncpus = 4\ndisk = \"40GiB\"\n").expect("sound");
        let expected = Config {
            cpus: Some(4),
            ..Config::default()
        };
        assert_eq!(changeable(config), expected);
    }
}
