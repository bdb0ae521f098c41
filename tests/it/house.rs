//! The plan of the code, held: imports run only to the right.
//!
//! cli → machine → qemu | image | seed | guest | cluster → project → base

use std::{fs, path::Path};

use crate::support::{program, repository};

/// Each room with those that it may know.
const ROOMS: [(&str, &[&str]); 9] = [
    ("base", &[]),
    ("project", &["base"]),
    ("qemu", &["project", "base"]),
    ("image", &["project", "base"]),
    ("seed", &["project", "base"]),
    ("guest", &["project", "base"]),
    ("cluster", &["project", "base"]),
    (
        "machine",
        &[
            "qemu", "image", "seed", "guest", "cluster", "project", "base",
        ],
    ),
    (
        "cli",
        &[
            "machine", "qemu", "image", "seed", "guest", "cluster", "project", "base",
        ],
    ),
];

#[test]
fn imports_run_only_to_the_right() {
    let mut seen = 0;
    for (room, allowed) in ROOMS {
        for (path, text) in sources(&repository("src").join(room)) {
            for other in ROOMS
                .map(|(other, _)| other)
                .into_iter()
                .filter(|&other| other != room)
            {
                let knows = text.contains(&format!("crate::{other}::")) || imports(&text, other);
                assert!(!knows || allowed.contains(&other), "{path} imports {other}");
                seen += usize::from(knows);
            }
        }
    }
    assert!(seen > 50, "the check sees imports: {seen}");
}

/// Whether the text has `use crate::{ ..., other::..., }`.
fn imports(text: &str, other: &str) -> bool {
    text.split("use crate::{")
        .skip(1)
        .filter_map(|rest| rest.split("\n};").next())
        .any(|block| {
            block.lines().any(|line| {
                line.trim().starts_with(&format!("{other}::"))
                    || line.contains(&format!(" {other}::"))
            })
        })
}

/// A URL may have a password in it: for people there is `base::address::shown`.
#[test]
fn no_url_is_shown_as_it_is() {
    for room in ["image", "cluster", "machine", "cli"] {
        for (path, text) in sources(&repository("src").join(room)) {
            for shown in ["rl.to_string()", "rl.as_str()", "%url", "%job.url"] {
                let own_text = text.split("#[cfg(test)]").next().unwrap_or_default();
                let shows = own_text.contains(shown) && !path.contains("/tests");
                assert!(!shows, "{path} has {shown:?}");
            }
        }
    }
}

fn sources(directory: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("a room").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push((
                path.display().to_string(),
                fs::read_to_string(&path).expect("readable"),
            ));
        }
    }
    all
}

#[test]
fn the_top_level_is_as_agreed() {
    let listed = std::process::Command::new("git")
        .args(["ls-files"])
        .current_dir(repository(""))
        .output()
        .expect("git runs");
    let agreed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "firmware",
        "tests",
        "README.md",
        ".gitignore",
        ".ci",
    ];
    for file in String::from_utf8_lossy(&listed.stdout).lines() {
        let top = file.split('/').next().unwrap_or_default();
        assert!(agreed.contains(&top), "{file}");
    }
}

#[test]
fn no_shared_library_is_needed_but_the_c_librarys_own() {
    let listed = std::process::Command::new("ldd")
        .arg(program())
        .output()
        .expect("ldd runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for line in listed.lines() {
        let own = ["linux-vdso.so", "libc.so", "libm.so", "ld-linux"];
        assert!(own.iter().any(|it| line.contains(it)), "{listed}");
    }
    assert!(listed.contains("libc.so"), "{listed}");
}
