//! The disk is full, at each place where something is written, and then has room again.

use std::{collections::BTreeSet, fs, path::PathBuf, thread};

use super::{
    mirror::sizes,
    sandbox::{Sandbox, eventually},
    server::{Server, ServerFault},
    small::{PAGE, Small},
};
use crate::support::{dead_image, names, private_dir};

/// More than a new project is asked to have room for.
const ENOUGH: u64 = 3 << 30;

/// In the order in which a setup writes them, with the one that fails when there is no space for it: before the settings
/// the record is written a second time, which needs as much.
const FILES: [(&str, &str); 8] = [
    ("record.json", "record.json"),
    ("disk.qcow2", "disk.qcow2"),
    ("approved", "approved"),
    ("config", "config"),
    ("config.tar", "record.json"),
    ("id_ed25519", "id_ed25519"),
    ("host_ed25519", "host_ed25519"),
    ("seed.img", "seed.img"),
];

/// All is well until the release comes; then the space goes.
#[test]
fn a_project_that_fills_up() {
    let whole = Sandbox::new();
    whole.stopped();
    let size = |(file, _): &(&str, &str)| {
        let metadata = fs::metadata(whole.file(file)).expect("there");
        metadata.len().next_multiple_of(PAGE)
    };
    for (before, (file, fails)) in FILES.iter().enumerate() {
        let room = FILES[..before].iter().map(size).sum();
        let words = [
            "No space left on device",
            fails,
            " needed, ",
            " free",
            "hint: free space on the file system of",
        ];
        let fault = format!("no space in the project for {file}");
        let mut sandbox = Sandbox::new();
        let project = sandbox.env.project.clone();
        let small = Small::over(&mut sandbox, &project, ENOUGH);
        let server = Server::of(&sandbox.mirror, ServerFault::Hold);
        let setup = || sandbox.setup_from(&server.url, &[]);
        thread::scope(|threads| {
            threads.spawn(|| {
                eventually("the release comes", || server.troubled().len() == 1);
                small.has_room_for(&sandbox, room);
                server.mends();
            });
            sandbox.fails(&fault, setup(), 1, &words);
        });
        small.remount(&sandbox, &format!("size={ENOUGH}"));
        sandbox.continues(setup());
        assert_eq!(server.troubled().len(), 1, "what was fetched is kept");
    }
}

/// Each run has room for one file more than the last one, and comes so much further.
#[track_caller]
fn one_file_more_each_time(place: &str, directory: impl Fn(&Sandbox) -> PathBuf) {
    let mut sandbox = Sandbox::new();
    let directory = directory(&sandbox);
    fs::create_dir_all(&directory).expect("created");
    let small = Small::over(&mut sandbox, &directory, ENOUGH);
    let server = Server::of(&sandbox.mirror, ServerFault::None);
    let mut said = BTreeSet::new();
    for files in 1..40 {
        small.remount(&sandbox, &format!("nr_inodes={files}"));
        let setup = sandbox.setup_from(&server.url, &["--timeout", "3s"]);
        let fault = format!("no more than {files} files in the {place}");
        let ended = sandbox.fails(&fault, setup, 1, &[]);
        if ended.stderr.contains("not ready within 3s") {
            assert!(files > 10, "{files}");
            return;
        }
        for word in [
            "No space left on device",
            "hint: free space on the file system of",
        ] {
            assert!(ended.stderr.contains(word), "{fault}: {}", ended.stderr);
        }
        let counted = ended.stderr.contains("it has no free inodes: df -i /");
        assert!(
            counted || ended.stderr.contains("PID file"),
            "{}",
            ended.stderr
        );
        said.insert(ended.stderr);
    }
    panic!("it never has room enough: {said:#?}");
}

#[test]
fn a_project_that_takes_no_more_files() {
    one_file_more_each_time("project", |sandbox| sandbox.env.project.clone());
}

#[test]
fn a_cache_that_takes_no_more_files() {
    one_file_more_each_time("cache", |sandbox| sandbox.env.cache.clone());
}

/// What has come stays, and the rest comes when there is room.
#[test]
fn a_cache_that_fills_up_during_a_download() {
    for (fault, target, half, trouble) in [
        (
            "no space in the cache for k3s",
            "/k3s",
            1 << 19,
            ServerFault::Hold,
        ),
        (
            "no space in the cache for the image",
            "/disk.img",
            1 << 20,
            ServerFault::Hold,
        ),
        (
            "no space in the cache, from a server without ETags",
            "/k3s",
            1 << 19,
            ServerFault::HoldUnnamed,
        ),
    ] {
        let mut sandbox = Sandbox::new();
        let cache = sandbox.env.cache.clone();
        private_dir(&cache);
        dead_image(&sandbox.mirror.join("disk.img"));
        let small = Small::over(&mut sandbox, &cache, 64 << 20);
        let server = Server::at(&sandbox.mirror, target, trouble.clone());
        let image = format!("{}/disk.img", server.url);
        let setup = || {
            let flags = ["--image", &image, "--insecure-no-checksum"];
            sandbox.setup_from(&server.url, &flags)
        };
        let within = |directory| sandbox.seen(&cache.join(directory));
        let half_is_here = || sizes(&within("partial")).contains(&half);
        let other_is_here = || names(&within("images")).len() + names(&within("k3s")).len() == 1;
        thread::scope(|threads| {
            threads.spawn(|| {
                eventually("half of it is here", || half_is_here() && other_is_here());
                small.has_room_for(&sandbox, 16 * PAGE);
                server.mends();
            });
            let words = [
                "not enough space in",
                "/cache/partial: ",
                " needed, ",
                " free",
                "hint: free space",
            ];
            sandbox.fails(fault, setup(), 1, &words);
        });
        // What cannot be continued would only take the room.
        let kept = !names(&within("partial")).is_empty();
        assert_eq!(kept, trouble == ServerFault::Hold);
        small.has_room_for(&sandbox, 64 << 20);
        sandbox.continues(setup());
        let requests = server.troubled();
        assert_eq!(requests.len(), 2, "{requests:?}");
        let resumed = requests[1].contains("\r\nrange: bytes=");
        assert_eq!(resumed, trouble == ServerFault::Hold, "{requests:?}");
        assert_eq!(names(&within("partial")), Vec::<String>::new());
    }
}

#[test]
fn a_vm_whose_project_is_full() {
    let mut sandbox = Sandbox::new();
    let project = sandbox.env.project.clone();
    let small = Small::over(&mut sandbox, &project, ENOUGH);
    sandbox.stopped();
    let start = || sandbox.inside(sandbox.env.command(&["start"]));
    small.has_room_for(&sandbox, 0);
    let words = [
        "record.json: No space left on device",
        " needed, 0 B free",
        "hint: free space on the file system of",
    ];
    sandbox.fails("no space for a start", start(), 1, &words);
    small.has_room_for(&sandbox, ENOUGH);
    sandbox.continues(start());
}
