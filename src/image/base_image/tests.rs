use std::os::unix::fs::PermissionsExt;

use sha2::{Digest as _, Sha512};
use tempfile::TempDir;

use super::*;
use crate::{
    base::{Size, progress::Silent},
    image::{
        Entry, Format,
        test_server::{Reply, Server},
    },
};

/// The smallest raw disk that passes, with something in it and holes.
fn disk(mark: u8) -> Vec<u8> {
    let mut disk = vec![0; 3 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[5 << 19] = mark;
    disk
}

fn cache() -> (TempDir, Cache) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let cache = Cache::new(directory.path().join("cache"));
    (directory, cache)
}

fn alias(server: &Server) -> ImageSource {
    ImageSource::Alias(Box::leak(Box::new(Entry {
        alias: "test-1".to_owned(),
        also: Vec::new(),
        name: "Test 1".to_owned(),
        url: server.url("/disk.img").to_string(),
        checksums: server.url("/SUMS").to_string(),
    })))
}

#[tokio::test]
async fn an_alias_is_verified_once_and_then_needs_no_network() {
    let body = disk(1);
    let sha512: String = Sha512::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    for checksum in [Digest::of(&body).to_string(), sha512] {
        let sums = format!("{checksum} *disk.img\n");
        let server = Server::start(vec![Reply::ok(sums.as_bytes()), Reply::ok(&body)]).await;
        let (_directory, cache) = cache();
        let source = alias(&server);
        let image = cache
            .ensure_image(&source, None, &Silent)
            .await
            .expect("set K3S_VM_CACHE_DIR to a directory that you can write to");
        assert_eq!(
            (image.digest, image.format),
            (Digest::of(&body), Format::Raw)
        );
        assert_eq!(image.virtual_size, Size::mib(3));
        assert_eq!(std::fs::read(&image.path).expect("read"), body);
        assert_eq!(
            image
                .path
                .metadata()
                .expect("is there")
                .permissions()
                .mode()
                & 0o777,
            0o444
        );

        assert_eq!(server.requests().len(), 2);
        drop(server);
        assert_eq!(
            cache
                .ensure_image(&source, None, &Silent)
                .await
                .expect("cached"),
            image
        );
        assert_eq!(cache.find_image(image.digest), Some(image));
    }
}

#[tokio::test]
async fn a_bad_image_is_reported_and_not_cached() {
    let sums = format!("{}  disk.img\n", Digest::of(b"other"));
    let server = Server::start(vec![
        Reply::ok(sums.as_bytes()),
        Reply::ok(&disk(1)),
        Reply::ok(b"<!DOCTYPE html>"),
    ])
    .await;
    let (_directory, cache) = cache();
    let cache = cache.unverified(true);
    let url = ImageSource::Url(server.url("/login"));
    for (source, message) in [
        (&alias(&server), "/disk.img has the wrong checksum"),
        (&url, "/login is not a disk image: it is an HTML page"),
    ] {
        let error = cache
            .ensure_image(source, None, &Silent)
            .await
            .expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
    }
    let partial = cache.directory("partial").expect("is there");
    assert_eq!(
        partial.read_dir().expect("listed").count(),
        0,
        "nothing is left over"
    );
}

#[tokio::test]
async fn a_digest_overrides_the_url() {
    let (one, two) = (disk(1), disk(2));
    let server = Server::start(vec![Reply::ok(&one), Reply::ok(&two)]).await;
    let (_directory, cache) = cache();
    let cache = cache.unverified(true);
    let source = ImageSource::Url(server.url("/disk.img"));
    let ensure = async |sha256| cache.ensure_image(&source, sha256, &Silent).await;
    assert_eq!(ensure(None).await.expect("first").digest, Digest::of(&one));
    assert_eq!(
        ensure(None).await.expect("cached wins").digest,
        Digest::of(&one)
    );
    let wanted = Digest::of(&two);
    assert_eq!(
        ensure(Some(wanted)).await.expect("asked for").digest,
        wanted
    );
    assert_eq!(
        ensure(Some(Digest::of(&one)))
            .await
            .expect("still there")
            .digest,
        Digest::of(&one)
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_changed_file_is_copied_again() {
    let (directory, cache) = cache();
    let path = directory.path().join("my disk.img");
    std::fs::write(&path, disk(1)).expect("written");
    let source = ImageSource::Path(path.clone());
    let image = cache
        .ensure_image(&source, None, &Silent)
        .await
        .expect("copied");
    assert_eq!(std::fs::read(&image.path).expect("read"), disk(1));
    assert_eq!(
        cache
            .ensure_image(&source, None, &Silent)
            .await
            .expect("known"),
        image
    );

    std::fs::write(&path, disk(2)).expect("written");
    let changed = cache
        .ensure_image(&source, None, &Silent)
        .await
        .expect("copied");
    assert_eq!(changed.digest, Digest::of(&disk(2)));
    assert_eq!(std::fs::read(&image.path).expect("still there"), disk(1));

    let wrong = cache
        .ensure_image(&source, Some(image.digest), &Silent)
        .await
        .expect_err("another");
    assert!(matches!(wrong, ImageError::WrongChecksum { .. }), "{wrong}");
}

#[tokio::test]
async fn other_files_than_images_are_refused() {
    let (directory, cache) = cache();
    std::fs::write(directory.path().join("empty"), "").expect("written");
    for (name, message) in [
        ("", "cannot read"),
        ("empty", "an empty file"),
        ("absent", "cannot open"),
    ] {
        let path = directory.path().join(name);
        let error = cache
            .ensure_image(&ImageSource::Path(path.clone()), None, &Silent)
            .await;
        let text = error.expect_err(message).to_string();
        assert!(text.contains(message) && text.contains(name), "{text}");
    }
}

#[tokio::test]
async fn a_damaged_index_or_image_is_repaired() {
    let body = disk(1);
    let server = Server::start(vec![Reply::ok(&body), Reply::ok(&body), Reply::ok(&body)]).await;
    let (_directory, cache) = cache();
    let cache = cache.unverified(true);
    let source = ImageSource::Url(server.url("/disk.img"));
    let image = cache
        .ensure_image(&source, None, &Silent)
        .await
        .expect("first");
    let index = cache
        .root()
        .join("sources")
        .join(format!("{}.json", key(&server.url("/disk.img"))));
    std::fs::write(&index, "{").expect("damaged");
    assert_eq!(
        cache
            .ensure_image(&source, None, &Silent)
            .await
            .expect("again"),
        image
    );
    std::fs::remove_file(&image.path).expect("removed");
    std::fs::write(&image.path, &body[..2 << 20]).expect("cut");
    assert_eq!(
        cache
            .ensure_image(&source, None, &Silent)
            .await
            .expect("again"),
        image
    );
    assert_eq!(std::fs::read(&image.path).expect("whole"), body);
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn unverified_downloads_need_consent() {
    let server = Server::start(vec![Reply::ok(b"nothing here\n"), Reply::ok(&disk(1))]).await;
    let (_directory, strict) = cache();
    let lax = strict.clone().unverified(true);
    let url = ImageSource::Url(server.url("/other.img"));
    let refused = async |source: &ImageSource, message: &str| {
        let refused = strict.ensure_image(source, None, &Silent).await;
        let error = refused.expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
    };
    refused(&alias(&server), "has no checksum for disk.img").await;
    refused(&url, "cannot verify").await;
    let taken = async || lax.ensure_image(&url, None, &Silent).await;
    let image = taken().await.expect("taken");
    assert_eq!(taken().await.expect("kept"), image);
    // What one project takes upon itself holds for no other.
    refused(&url, "cannot verify").await;
    let right = strict.ensure_image(&url, Some(image.digest), &Silent).await;
    assert_eq!(right.expect("right bytes are right"), image);
    assert_eq!(server.requests().len(), 2);
}
