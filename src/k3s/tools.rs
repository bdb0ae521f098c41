//! kubectl and k9s: the program to run for each. They are the user's own; without a kubectl, k3s is used.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A tool that talks to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The command line of Kubernetes.
    Kubectl,
    /// A terminal interface of Kubernetes.
    K9s,
}

impl Tool {
    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kubectl => "kubectl",
            Self::K9s => "k9s",
        }
    }

    /// The tool with that program name.
    pub fn by_name(name: &str) -> Option<Self> {
        [Self::Kubectl, Self::K9s]
            .into_iter()
            .find(|tool| tool.name() == name)
    }

    /// The command of the first program of that name on the `PATH` that is not `this` program under another name; for
    /// kubectl, without one, the `k3s` binary, which unpacks itself into `k3s_data` at its first run.
    pub fn command(self, this: &Path, k3s: &Path, k3s_data: &Path) -> Option<Command> {
        let path = env::var_os("PATH").unwrap_or_default();
        if let Some(program) = first_other(self.name(), env::split_paths(&path), this) {
            return Some(Command::new(program));
        }
        let runs = |it: &Path| nix::unistd::access(it, nix::unistd::AccessFlags::X_OK).is_ok();
        let stands_in = self == Self::Kubectl && k3s.is_file() && runs(k3s);
        stands_in.then(|| {
            let mut command = Command::new(k3s);
            command.arg("kubectl").env("K3S_DATA_DIR", k3s_data);
            command
        })
    }
}

fn first_other(
    name: &str,
    directories: impl Iterator<Item = PathBuf>,
    this: &Path,
) -> Option<PathBuf> {
    let this = fs::canonicalize(this).ok();
    directories
        .map(|directory| directory.join(name))
        .find(|path| {
            nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
                && path.is_file()
                && fs::canonicalize(path).ok() != this
        })
}

/// Replaces this process with the tool, with the kubeconfig if one is given; returns only an error.
pub fn exec(
    mut command: Command,
    arguments: &[OsString],
    kubeconfig: Option<&Path>,
) -> std::io::Error {
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    command.args(arguments).exec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_ourselves_is_not_the_tool() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let [ours, theirs] = ["ours", "theirs"].map(|name| directory.path().join(name));
        for path in [&ours, &theirs] {
            fs::create_dir(path).expect("created");
        }
        let this = directory.path().join("k3s-vm");
        fs::copy("/bin/true", &this).expect("copied");
        fs::copy("/bin/true", theirs.join("kubectl")).expect("copied");
        std::os::unix::fs::symlink(&this, ours.join("kubectl")).expect("linked");
        let found = first_other("kubectl", [ours, theirs.clone()].into_iter(), &this);
        assert_eq!(found, Some(theirs.join("kubectl")));
        assert_eq!(Tool::by_name("kubectl"), Some(Tool::Kubectl));
        assert_eq!(Tool::by_name("helm"), None);
    }
}
