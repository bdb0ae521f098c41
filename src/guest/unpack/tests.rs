//! Archives as a guest may send them, also hostile ones.

use super::*;
use crate::base::progress::Silent;

/// A part of an archive, hostile or not.
enum Part<'a> {
    Folder(&'a str),
    File(&'a str, &'a str),
    Symlink(&'a str, &'a str),
    Link(&'a str, &'a str),
}
use Part::{File, Folder, Link, Symlink};

fn archive(parts: &[Part<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for part in parts {
        let (name, kind, link, content) = match *part {
            Folder(name) => (name, EntryType::Directory, "", ""),
            File(name, content) => (name, EntryType::Regular, "", content),
            Symlink(name, link) => (name, EntryType::Symlink, link, ""),
            Link(name, link) => (name, EntryType::Link, link, ""),
        };
        let mut header = tar::Header::new_gnu();
        // Not by its own functions, which refuse names that lead out.
        let raw = header.as_gnu_mut().expect("it is one");
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4750);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("added");
    }
    builder.into_inner().expect("ended")
}

fn come(bytes: &[u8], directory: &Path) -> Result<Staged, CopyError> {
    unpack(bytes, stage_in(directory)?, "it", &Silent)
}

#[test]
fn a_directory_is_unpacked_and_merged() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let target = directory.path().join("target");
    let bytes = archive(&[
        Folder("./"),
        Folder("./sub/"),
        File("./sub/file", "one"),
        Symlink("./link", "/etc/passwd"),
        Link("./sub/again", "./sub/file"),
    ]);
    come(&bytes, directory.path())
        .expect("whole")
        .place(&target)
        .expect("placed");
    let file = target.join("sub/file");
    assert_eq!(fs::read_to_string(&file).expect("there"), "one");
    let metadata = fs::metadata(target.join("sub/again")).expect("there");
    // Without the bit that runs it as its owner.
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o750);
    assert!(
        fs::metadata(&target)
            .expect("there")
            .modified()
            .expect("time")
            .elapsed()
            .expect("past")
            .as_secs()
            > 1000
    );
    assert_eq!(
        fs::read_link(target.join("link")).expect("a link"),
        Path::new("/etc/passwd")
    );

    fs::write(target.join("own"), "stays").expect("written");
    fs::write(&file, "changed").expect("written");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).expect("set");
    come(&bytes, directory.path())
        .expect("whole")
        .place(&target)
        .expect("merged");
    assert_eq!(fs::read_to_string(&file).expect("there"), "one");
    assert_eq!(
        fs::read_to_string(target.join("own")).expect("there"),
        "stays"
    );
    assert_eq!(
        fs::metadata(&target).expect("there").permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(
        fs::read_dir(directory.path()).expect("listed").count(),
        1,
        "no stage stays"
    );
}

#[test]
fn paths_cannot_escape() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).expect("created");
    let out = outside.to_str().expect("text");
    let inside = directory.path().join("inside");
    fs::create_dir(&inside).expect("created");
    for parts in [
        &[Folder("./"), File("../outside/x", "x")][..],
        &[Folder("./"), File(&format!("{out}/x"), "x")],
        &[Folder("./"), Symlink("./l", out), File("./l/x", "x")],
        &[
            Folder("./"),
            Symlink("./l", out),
            Folder("./l/"),
            File("./l/x", "x"),
        ],
        &[
            Folder("./"),
            Symlink("./l", &format!("{out}/x")),
            File("./l", "x"),
        ],
        &[Folder("./"), Symlink("./l", out), Symlink("./l/x", "x")],
        &[Folder("./"), Link("./l", "../../outside")],
        &[Folder("./"), Symlink("./l", out), Link("./x", "./l/x")],
        &[Folder("./"), Folder("./")],
        &[File("one", "1"), File("two", "2")],
        &[Symlink("it", out), File("it/x", "x")],
        &[],
    ] {
        let error = come(&archive(parts), &inside).expect_err("refused");
        assert!(!error.to_string().is_empty());
        assert_eq!(
            fs::read_dir(&outside).expect("listed").count(),
            0,
            "{error}"
        );
        assert_eq!(fs::read_dir(&inside).expect("listed").count(), 0, "{error}");
    }
    // Whatever the first name is, a file gets the name that was asked for.
    let staged = come(&archive(&[File("../outside/../x", "x")]), &inside);
    assert!(staged.is_err());
    let target = inside.join("wanted");
    let staged = come(&archive(&[File("other", "x")]), &inside).expect("whole");
    staged.place(&target).expect("placed");
    assert_eq!(fs::read_dir(&inside).expect("listed").count(), 1);
    assert!(target.exists());
}

#[test]
fn half_an_archive_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let bytes = archive(&[Folder("./"), File("./file", &"x".repeat(2000))]);
    for length in [0, 100, 600, 1024, 1500] {
        assert!(
            come(&bytes[..length], directory.path()).is_err(),
            "{length}"
        );
    }
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0);
}

#[test]
fn oversized_writes_are_rejected_first() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(0);
    let raw = header.as_gnu_mut().expect("it is one");
    raw.name[..3].copy_from_slice(b"big");
    // 8 TiB of holes.
    raw.set_real_size(8 << 40);
    let binary = [&[0x80, 0, 0, 0][..], &(8_u64 << 40).to_be_bytes()].concat();
    raw.sparse[0].offset.copy_from_slice(&binary);
    raw.sparse[0].numbytes[..2].copy_from_slice(b"0 ");
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend([0; 1024]);
    let error = come(&bytes, directory.path()).expect_err("refused");
    let CopyError::File(error) = error else {
        panic!("{error}");
    };
    assert!(error.is_out_of_space(), "{error:?}");
    assert!(
        error.source.to_string().contains("8 TiB needed"),
        "{error:?}"
    );
    assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 0);
}

#[test]
fn an_endless_name_is_rejected() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(3 << 29);
    header.set_cksum();
    let endless = header.as_bytes().chain(io::repeat(b'x'));
    let stage = stage_in(directory.path()).expect("made");
    let error = unpack(endless, stage, "it", &Silent).expect_err("refused");
    let CopyError::Archive(error) = error else {
        panic!("{error}");
    };
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error}");
}

#[test]
fn a_special_file_is_not_replaced() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let fifo = directory.path().join("fifo");
    files::make_fifo(&fifo).expect("made");
    let staged = come(&archive(&[File("it", "x")]), directory.path()).expect("whole");
    let error = staged.place(&fifo).expect_err("refused");
    assert!(matches!(error, CopyError::Special(_)), "{error}");
    let tree = archive(&[Folder("./"), File("./fifo", "x")]);
    let staged = come(&tree, directory.path()).expect("whole");
    let error = staged.place(directory.path()).expect_err("refused");
    assert!(matches!(error, CopyError::Special(_)), "{error}");
    let now = fs::symlink_metadata(&fifo).expect("there");
    assert!(!now.is_file());
}
