//! Further machines of a scene: one whose setup came to its end, and those of other projects.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;

use super::sandbox::Sandbox;
use crate::support::{Ended, TestEnv, finish};

impl Sandbox {
    /// A machine that is there, does not run, and whose setup came to its end once, with a kubeconfig at that place.
    pub(super) fn finished(&self, kubeconfig: &Path) -> PathBuf {
        self.stopped();
        self.provisioned(kubeconfig)
    }

    /// From now on its setup has come to its end.
    pub(super) fn provisioned(&self, kubeconfig: &Path) -> PathBuf {
        let path = self.file("record.json");
        let text = fs::read_to_string(&path).expect("there");
        let mut record: serde_json::Value = serde_json::from_str(&text).expect("a record");
        record["provisioned"] = true.into();
        record["kubeconfig"] = kubeconfig.to_string_lossy().into();
        fs::write(&path, record.to_string()).expect("written");
        self.trusted();
        let kubeconfig = self.env.project.join(kubeconfig);
        fs::create_dir_all(kubeconfig.parent().expect("a directory")).expect("created");
        let text = self.kubeconfig(&record["name"], &record["api_port"]);
        fs::write(&kubeconfig, text).expect("written");
        kubeconfig
    }

    /// From now on that port is the one of the machine's last start.
    pub(super) fn had_port(&self, port: u16) {
        let path = self.file("record.json");
        let text = fs::read_to_string(&path).expect("there");
        let mut record: serde_json::Value = serde_json::from_str(&text).expect("a record");
        record["api_port"] = port.into();
        fs::write(&path, record.to_string()).expect("written");
        self.trusted();
    }

    /// The user has no doubt about what the test has changed.
    pub(super) fn trusted(&self) {
        let trust = self.inside(self.env.command(&["trust", "--yes"]));
        let ended = finish(trust);
        assert_eq!(ended.code, 0, "{ended:?}");
    }

    /// As the program writes it, but for the certificates.
    fn kubeconfig(&self, name: &serde_json::Value, port: &serde_json::Value) -> String {
        let cluster = serde_json::json!({
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": "Q0E=",
        });
        let user = serde_json::json!({
            "client-certificate-data": "Q0VSVA==",
            "client-key-data": "S0VZ",
        });
        let extension = serde_json::json!({ "project": self.env.project });
        let context = serde_json::json!({
            "cluster": name,
            "user": name,
            "extensions": [{ "name": "k3s-vm", "extension": extension }],
        });
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": name, "cluster": cluster }],
            "users": [{ "name": name, "user": user }],
            "contexts": [{ "name": name, "context": context }],
            "current-context": name,
        })
        .to_string()
    }

    /// Another project of the same user.
    pub(super) fn elsewhere(&self, project: PathBuf) -> Elsewhere<'_> {
        Elsewhere {
            env: &self.env,
            project,
        }
    }

    /// Starts a VM that no command waits for. Returns its process.
    pub(super) fn left_running(&self) -> u32 {
        let setup = self.booting();
        setup.signal(Signal::KILL);
        drop(setup);
        self.env.pid().expect("it runs").cast_unsigned()
    }
}

/// Another project of the same user: its machine is gone at the end of the test at the latest.
pub(super) struct Elsewhere<'a> {
    pub(super) env: &'a TestEnv,
    pub(super) project: PathBuf,
}

impl Elsewhere<'_> {
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        self.here(self.env.command(arguments))
    }

    /// A command of the first project, in this one.
    pub(super) fn here(&self, mut command: Command) -> Command {
        command.current_dir(&self.project);
        command
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Ended {
        finish(self.command(arguments))
    }

    pub(super) fn status(&self) -> serde_json::Value {
        let ended = self.run(&["status", "--json"]);
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
    }
}

impl Drop for Elsewhere<'_> {
    fn drop(&mut self) {
        if self.project.join(".k3s-vm").exists() {
            self.run(&["reset", "--yes"]);
        }
    }
}
