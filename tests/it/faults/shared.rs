//! The cache, which projects share, and which lies wherever the user has it.

use std::process::Command;

use rustix::process::Signal;

use super::{
    mirror::sizes,
    sandbox::{Background, Sandbox, eventually, in_other_mounts},
    server::{Server, ServerFault},
    table::row,
};
use crate::support::{dead_image, names, private_dir};

/// Two projects of one user, and the server that both fetch from: it holds on in the middle of one file.
fn two_projects(target: &'static str) -> (Sandbox, Sandbox, Server) {
    let one = Sandbox::new();
    let mut other = Sandbox::new();
    other.env.cache.clone_from(&one.env.cache);
    dead_image(&one.mirror.join("disk.img"));
    let server = Server::at(&one.mirror, target, ServerFault::Hold);
    (one, other, server)
}

/// The same setup for both.
fn setup(sandbox: &Sandbox, server: &Server) -> Command {
    let image = format!("{}/disk.img", server.url);
    sandbox.setup_from(&server.url, &["--image", &image, "--insecure-no-checksum"])
}

const WAITS: &str = "waiting for another k3s-vm that downloads ";

#[test]
fn two_projects_that_need_the_same_download() {
    for (target, name) in [("/k3s", "k3s v1.33.5+k3s1"), ("/disk.img", "disk.img")] {
        let (one, other, server) = two_projects(target);
        let first = Background::start(&one, setup(&one, &server));
        eventually("the first is at it", || server.troubled().len() == 1);
        let second = Background::start(&other, setup(&other, &server));
        let waits = format!("{WAITS}{name}");
        second.says(&waits);
        server.mends();
        for (sandbox, setup, fetches) in [(&one, first, true), (&other, second, false)] {
            eventually("the VM runs", || {
                assert!(setup.is_running(), "{}", setup.said());
                sandbox.status()["process"]["run_state"] == "running"
            });
            setup.signal(Signal::INT);
            let ended = setup.end();
            assert_eq!(ended.code, 130);
            let fetched = ended.stderr.contains(&format!("fetched {name}"));
            assert_eq!(fetched, fetches, "{}", ended.stderr);
            assert_eq!(ended.stderr.contains(&waits), !fetches);
        }
        let left = [one.left(), other.left()].concat();
        row(
            &format!("two setups that need {name} at once"),
            130,
            &waits,
            &left,
        );
        assert_eq!(left, Vec::<String>::new());
        assert_eq!(server.troubled().len(), 1, "{:?}", server.requests());
    }
}

#[test]
fn the_downloading_command_is_killed() {
    let (one, other, server) = two_projects("/k3s");
    let first = Background::start(&one, setup(&one, &server));
    let half = 1 << 19;
    let partial = one.env.cache.join("partial");
    eventually("half of it is here", || sizes(&partial).contains(&half));
    let second = Background::start(&other, setup(&other, &server));
    let waits = format!("{WAITS}k3s v1.33.5+k3s1");
    second.says(&waits);
    first.signal(Signal::KILL);
    drop(first);
    server.mends();
    eventually("the VM runs", || {
        assert!(second.is_running(), "{}", second.said());
        other.status()["process"]["run_state"] == "running"
    });
    second.signal(Signal::INT);
    let ended = second.end();
    let fault = "another setup, which it waits for, is killed";
    row(fault, ended.code, &waits, &other.left());
    assert_eq!(ended.code, 130);
    let requests = server.troubled();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(requests[1].contains(&format!("\r\nrange: bytes={half}-\r\n")));
    one.continues(setup(&one, &server));
    assert_eq!(server.troubled().len(), 2, "it is there");
}

#[test]
fn a_cache_that_may_only_be_read() {
    let mut sandbox = Sandbox::new();
    private_dir(&sandbox.env.cache);
    let cache = sandbox.env.cache.display();
    let script =
        format!("mount --bind {cache} {cache}; mount -o remount,bind,ro {cache}; exec \"$@\"");
    let words = [
        "cannot create",
        "/cache/",
        "Read-only file system",
        "set K3S_VM_CACHE_DIR",
    ];
    let empty = in_other_mounts(&sandbox, &sandbox.setup(&[]), &script);
    sandbox.fails("an empty cache that is read-only", empty, 1, &words);
    sandbox.continues(sandbox.setup(&[]));

    // For another project, all that it needs is there.
    let mut other = Sandbox::new();
    other.env.cache.clone_from(&sandbox.env.cache);
    std::mem::swap(&mut other.image, &mut sandbox.image);
    std::mem::swap(&mut other.mirror, &mut sandbox.mirror);
    let full = in_other_mounts(&other, &other.setup(&[]), &script);
    other.survives("a full cache that is read-only", full, &[]);
}

#[test]
fn a_cache_on_another_file_system() {
    let sandbox = Sandbox::new();
    let script = "mkdir ../cache; mount -t tmpfs -o size=64m,mode=700 none ../cache; exec \"$@\"";
    let setup = in_other_mounts(&sandbox, &sandbox.setup(&[]), script);
    sandbox.survives("a cache on another file system", setup, &[]);
    assert_eq!(names(&sandbox.env.cache), Vec::<String>::new());
}

#[test]
fn no_home() {
    let sandbox = Sandbox::new();
    let homeless = |variables: &[(&str, &str)]| {
        let mut setup = sandbox.setup(&[]);
        setup.env_remove("K3S_VM_CACHE_DIR").env_remove("HOME");
        // The key has to be found by the other commands.
        setup.env("XDG_CONFIG_HOME", sandbox.env.path("home/.config"));
        setup.envs(variables.iter().copied());
        setup
    };
    let images = |cache: &str| names(&sandbox.env.path(cache).join("k3s-vm/images")).len();
    let words = [
        "there is no home directory for the cache: HOME is \"home\", which is not an absolute path",
        "set HOME, or K3S_VM_CACHE_DIR to a directory of yours",
    ];
    sandbox.fails("a relative HOME", homeless(&[("HOME", "home")]), 1, &words);

    let xdg = sandbox.env.path("xdg").display().to_string();
    let setup = homeless(&[("XDG_CACHE_HOME", &xdg)]);
    sandbox.survives("no HOME, but XDG_CACHE_HOME", setup, &[]);
    assert_eq!(images("xdg"), 1);

    let home = sandbox.env.path("home").display().to_string();
    let setup = homeless(&[("HOME", &home), ("XDG_CACHE_HOME", "xdg")]);
    sandbox.survives("a relative XDG_CACHE_HOME", setup, &[]);
    assert_eq!(images("home/.cache"), 1, "as if it were unset");

    // The user's entry is made up, so that no real home is touched.
    let script = "d=$(cd ..; pwd); echo \"root:x:0:0::$d/entry:/bin/sh\" > ../passwd; \
        mount --bind ../passwd /etc/passwd; exec \"$@\"";
    for (fault, variables) in [("no HOME", &[][..]), ("an empty HOME", &[("HOME", "")])] {
        let setup = in_other_mounts(&sandbox, &homeless(variables), script);
        sandbox.survives(fault, setup, &[]);
        assert_eq!(images("entry/.cache"), 1, "the home of the user database");
    }
}
