//! The program's own way, in surroundings of its own.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    support::{TestEnv, VERSION},
    ways::Way,
};

/// What both ways give the guest; the program does so of its own accord where it is its default.
pub(crate) const CPUS: &str = "2";
pub(crate) const MEMORY: &str = "2GiB";

/// A project of a user who has `image` as a file and a mirror of k3s's releases.
pub(crate) struct Program {
    pub(crate) env: TestEnv,
    setup: Vec<String>,
}

impl Program {
    /// On a host where nothing is in the cache yet.
    pub(crate) fn new(image: &Path, mirror: &str) -> Self {
        let image = image.display().to_string();
        let setup = [
            "setup",
            "--memory",
            MEMORY,
            "--image",
            &image,
            "--k3s-version",
            VERSION,
            "--k3s-mirror",
            mirror,
        ];
        Self {
            env: TestEnv::new(),
            setup: setup.map(str::to_owned).to_vec(),
        }
    }

    /// Another project on the same host, set up with more flags.
    pub(crate) fn second(&self, more: &[&str]) -> Self {
        let mut env = TestEnv::new();
        env.cache.clone_from(&self.env.cache);
        let mut setup = self.setup.clone();
        setup.extend(more.iter().map(|&flag| flag.to_owned()));
        Self { env, setup }
    }
}

impl Way for Program {
    fn command(&self, verb: &str) -> Command {
        match verb {
            "setup" => self.env.command(&self.setup),
            verb => self.env.command(&[verb]),
        }
    }

    fn in_guest(&self, script: &str) -> Command {
        self.env.command(&["ssh", script])
    }

    fn pidfile(&self) -> PathBuf {
        self.env.project.join(".k3s-vm/qemu.pid")
    }
}
