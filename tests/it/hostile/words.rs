//! What a person types: one word with a meaning, which is the same when it is shown and typed again.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use k3s_vm::{
    base::{Digest, Forward, HostPort, Mount, Name, Size, SnapshotName},
    image::{Checksum, ImageSource},
    k3s::release::{self, Mirror, Version},
    project::config_values::{AccelChoice, FirmwareChoice, Timeout},
};

use super::{storm::Storm, text};

/// Whether it is accepted; then it reads back.
fn reads_back<T: FromStr + Display + PartialEq + Debug>(word: &str) -> Option<T> {
    let parsed: T = word.parse().ok()?;
    let shown = parsed.to_string();
    assert_eq!(shown.parse().ok().as_ref(), Some(&parsed), "{shown:?}");
    Some(parsed)
}

#[test]
fn size() {
    Storm::of("size").on(text(|word| {
        let size = reads_back::<Size>(word);
        size.map(Size::approximate).is_some()
    }));
}

/// Nothing that a shell, a path, YAML or QEMU's options would read in another way.
#[test]
fn name() {
    Storm::of("name").on(text(|word| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = reads_back::<Name>(word);
        name.inspect(|name| assert!(name.as_str().chars().all(plain)))
            .is_some()
    }));
}

/// Never port 0, which would be any.
#[test]
fn forward() {
    Storm::of("forward").on(text(|word| {
        let _ = word.parse::<HostPort>();
        let forward = reads_back::<Forward>(word);
        forward
            .inspect(|it| assert!(it.host.port != 0 && it.guest != 0))
            .is_some()
    }));
}

/// Never a place that the guest needs, and never two lines of a unit.
#[test]
fn mount() {
    Storm::of("mount").on(text(|word| {
        let mount = reads_back::<Mount>(word);
        mount
            .inspect(|it| {
                let guest = &it.guest;
                assert!(guest.starts_with('/') && guest.split('/').all(|it| it != ".."));
                assert!(!guest.starts_with("/etc/") && !guest.ends_with(['/', '\\', '\n']));
                assert!(it.unit().is_ascii() && !it.unit().contains('/'));
            })
            .is_some()
    }));
}

/// A file's name, and nothing else of a path.
#[test]
fn label() {
    Storm::of("label").on(text(|word| {
        let label = reads_back::<SnapshotName>(word).map(|it| it.to_string());
        label
            .inspect(|it| assert!(!it.contains('/') && !it.starts_with('.')))
            .is_some()
    }));
}

#[test]
fn digest() {
    Storm::of("digest").on(text(|word| reads_back::<Digest>(word).is_some()));
}

#[test]
fn checksum() {
    Storm::of("digest")
        .called("checksum")
        .on(text(|word| word.parse::<Checksum>().is_ok()));
}

/// A version becomes a part of URLs, paths and a file that the guest's shell reads.
#[test]
fn k3s_version() {
    Storm::of("version").on(text(|word| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".+-".contains(c);
        let Some(version) = reads_back::<Version>(word) else {
            return false;
        };
        assert!(version.as_str().chars().all(plain), "{version}");
        let urls = release::plan(&Mirror::default(), &version);
        assert!(urls.binary.path().ends_with("/k3s"), "{}", urls.binary);
        true
    }));
}

#[test]
fn mirror() {
    let version: Version = "v1.33.5+k3s1".parse().expect("sound");
    Storm::of("mirror").on(text(|word| {
        let Ok(mirror) = word.parse::<Mirror>() else {
            return false;
        };
        let urls = release::plan(&mirror, &version);
        for (url, file) in [
            (urls.binary, "k3s"),
            (urls.checksums, "sha256sum-amd64.txt"),
        ] {
            let end = format!("/v1.33.5%2Bk3s1/{file}");
            assert!(url.path().ends_with(&end) && url.query().is_none(), "{url}");
        }
        true
    }));
}

#[test]
fn image() {
    Storm::of("image").on(text(|word| reads_back::<ImageSource>(word).is_some()));
}

#[test]
fn duration() {
    Storm::of("duration").on(text(|word| word.parse::<Timeout>().is_ok()));
}

#[test]
fn choices() {
    Storm::of("choice").on(text(|word| {
        let accel = word.parse::<AccelChoice>().map(AccelChoice::name);
        let firmware = word.parse::<FirmwareChoice>().map(FirmwareChoice::name);
        for name in [&accel, &firmware].into_iter().flatten() {
            assert_eq!(*name, word);
        }
        accel.is_ok() || firmware.is_ok()
    }));
}
