//! A small file system over a directory of a scene. It is there for several commands, and its size changes meanwhile.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::fs::statvfs;

use super::sandbox::Sandbox;
use crate::support::{TestEnv, finish};

pub(super) const PAGE: u64 = 4096;

/// A tmpfs in a mount table of its own, which lives as long as this. As root, or in a user namespace where there is no
/// root.
pub(super) struct Small {
    keeper: Child,
    directory: PathBuf,
    reset: Option<Command>,
}

impl Small {
    /// Covers `directory`; from now on the scene's commands are run there.
    pub(super) fn over(sandbox: &mut Sandbox, directory: &Path, size: u64) -> Self {
        // Not an argument: whose command line has the project in it is taken for something left behind.
        let script =
            format!("mount -t tmpfs -o mode=700,size={size} none \"$DIRECTORY\"; echo; read _");
        let mut unshare = sandbox.env.tool("unshare");
        let mut keeper = unshare
            .args(["--map-root-user", "--mount", "sh", "-ec", &script])
            .env("DIRECTORY", directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare runs");
        let stdout = keeper.stdout.as_mut().expect("piped");
        stdout.read_exact(&mut [0]).expect("mounted");
        sandbox.mounts = Some(keeper.id());
        let reset = sandbox.env.command(&["reset", "--yes"]);
        Self {
            reset: Some(enter(&sandbox.env, keeper.id(), &reset)),
            keeper,
            directory: directory.to_owned(),
        }
    }

    /// From now on there is room for so many bytes more.
    pub(super) fn has_room_for(&self, sandbox: &Sandbox, bytes: u64) {
        let now = statvfs(sandbox.seen(&self.directory)).expect("mounted");
        let used = (now.f_blocks - now.f_bfree) * PAGE;
        self.remount(sandbox, &format!("size={}", used + bytes));
    }

    pub(super) fn remount(&self, sandbox: &Sandbox, options: &str) {
        let mut mount = sandbox.env.tool("mount");
        let mount = mount.args(["-o", &format!("remount,{options}")]);
        // With a source, mount(8) leaves the options alone that were given before; its user it could not give again.
        let mount = mount.arg("none").arg(&self.directory);
        let status = enter(&sandbox.env, self.keeper.id(), mount).status();
        assert!(status.expect("nsenter runs").success(), "{options}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The scene's own cleaning does not see what lies here.
        self.reset.take().map(finish);
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// The same command under the mount table of `keeper`.
pub(super) fn enter(env: &TestEnv, keeper: u32, command: &Command) -> Command {
    let mut nsenter = env.tool("nsenter");
    let variables = command.get_envs();
    nsenter
        .env_clear()
        .envs(variables.filter_map(|(name, value)| Some((name, value?))))
        .args(["--target", &keeper.to_string()])
        .args(["--user", "--mount", "--preserve-credentials"])
        // The directory that was entered before may be covered.
        .args(["sh", "-ec", "cd \"$1\"; shift; exec \"$@\"", "sh"])
        .arg(&env.project)
        .arg(command.get_program())
        .args(command.get_args());
    nsenter
}

/// Where a path under the mount table of `keeper` is seen from outside.
pub(super) fn seen(keeper: u32, path: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{keeper}/root"));
    root.join(path.strip_prefix("/").expect("absolute"))
}
