//! What comes from the network: images, checksums, headers, the channels of k3s.

use k3s_vm::{
    base::{Digest, Size},
    image::{self, BaseImage, Checksum, download::ContentRange, format::judge},
    k3s::release::{parse_checksums, stable_channel},
    machine::cache::archive::ArchiveManifest,
};
use reqwest::{
    StatusCode,
    header::{CONTENT_RANGE, HeaderMap, HeaderValue},
};

use super::{storm::Storm, text};

/// An image is judged before anything else sees it; what is accepted can be the base of a disk, or is refused in words.
#[test]
fn disk_head() {
    Storm::of("disk").on(|input| {
        let verdicts = [input.len() as u64, 1 << 20, 1 << 34].map(|length| judge(input, length));
        let Some(Ok(disk)) = verdicts.into_iter().find(Result::is_ok) else {
            return false;
        };
        let base = BaseImage {
            path: format!(
                "/{}",
                String::from_utf8_lossy(input.get(104..).unwrap_or_default())
            )
            .into(),
            digest: Digest::of(b""),
            virtual_size: disk.virtual_size,
            format: disk.format,
        };
        let _ = image::plan(&base, disk.virtual_size.max(Size::gib(20)));
        true
    });
}

#[test]
fn image_checksums() {
    Storm::of("checksums").on(text(|sums| {
        let Some(found) = Checksum::find_in(sums, "k3s") else {
            return false;
        };
        let shown = found.to_string();
        let digits = shown.rsplit(' ').next().expect("digits");
        assert!(sums.to_ascii_lowercase().contains(digits));
        assert_eq!(digits.parse(), Ok(found));
        true
    }));
}

#[test]
fn release_checksums() {
    Storm::of("checksums")
        .called("release")
        .on(text(|sums| parse_checksums(sums).is_ok()));
}

#[test]
fn channels() {
    Storm::of("channels").on(text(|json| {
        let Ok(version) = stable_channel(json) else {
            return false;
        };
        assert_eq!(version.as_str().parse(), Ok(version));
        true
    }));
}

#[test]
fn content_range() {
    Storm::of("content-range").on(|input| {
        let Ok(value) = HeaderValue::from_bytes(input) else {
            return false;
        };
        let range = ContentRange::of(&HeaderMap::from_iter([(CONTENT_RANGE, value)]));
        let continues = |status| range.continues(status, 100);
        assert!(!range.continues(StatusCode::RANGE_NOT_SATISFIABLE, 0));
        continues(StatusCode::PARTIAL_CONTENT) || continues(StatusCode::RANGE_NOT_SATISFIABLE)
    });
}

/// The list of an archive of the cache: what it names can be shown, and nothing has two meanings.
#[test]
fn archive_manifest() {
    Storm::of("carried").on(|input| {
        let Ok(list) = ArchiveManifest::parse(input) else {
            return false;
        };
        for (index, file) in list.files.iter().enumerate() {
            assert!(!file.name.contains(char::is_control), "{:?}", file.name);
            let before = &list.files[..index];
            assert!(before.iter().all(|it| it.sha256 != file.sha256));
        }
        true
    });
}
