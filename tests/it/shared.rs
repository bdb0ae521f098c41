//! The caches that tests with a real guest share, one for each QEMU. The first setup leaves the guest's disk and memory
//! there, and a template if it was asked for one, and every later setup begins from these within seconds. Whichever test
//! comes first makes them; tests/run.sh runs the stories first, and begins with empty caches.
//!
//! Both QEMUs have to do: the host's own, whose guests boot by BIOS, and the newer one that tests/qemu10.sh unpacks, whose
//! guests boot by UEFI.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use crate::{
    prepared::made,
    support::{TestEnv, VERSION, guest_image, names, target},
    transcript::{Story, Told},
};

/// A QEMU, with the cache of what was made by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qemu {
    /// The one on the `PATH`.
    Host,
    /// QEMU 10.
    Newer,
}

impl Qemu {
    /// QEMU 10 where it was unpacked, which is on Debian 12 alone; else that of the host.
    pub(crate) fn newest() -> Self {
        let unpacked = Self::Newer.programs().is_some_and(|it| it.exists());
        if unpacked { Self::Newer } else { Self::Host }
    }

    /// Where its programs are, if not on the `PATH`.
    pub(crate) fn programs(self) -> Option<PathBuf> {
        (self == Self::Newer).then(|| target().join("qemu10/bin"))
    }

    /// A user of this QEMU, whose cache is the shared one.
    pub(crate) fn story(self, project: &str) -> Story {
        let mut story = Story::begin(project);
        if let Some(programs) = self.programs() {
            story = story.with_programs_of(&programs);
        }
        story.env.cache = self.cache();
        story
    }

    /// The same for a scene of faults.
    pub(crate) fn give(self, env: &mut TestEnv) {
        if let Some(programs) = self.programs() {
            let others = env.programs.to_string_lossy();
            env.programs = format!("{}:{others}", programs.display()).into();
        }
        env.cache = self.cache();
    }

    pub(crate) fn cache(self) -> PathBuf {
        self.directory().join("cache")
    }

    pub(crate) fn firmware(self) -> &'static str {
        if self == Self::Newer { "uefi" } else { "bios" }
    }

    /// The flags of a machine that can begin from what others have left.
    pub(crate) fn flags(self, story: &Story) -> String {
        let (image, mirror) = (guest_image().display(), story.env.mirror());
        let firmware = self.firmware();
        format!(
            "--image {image} --k3s-version {VERSION} --k3s-mirror {mirror} --memory 1536MiB --disk 4GiB \
             --accel tcg --firmware {firmware}"
        )
    }

    /// Runs a setup while no other test runs one with this cache, so that only the first one boots.
    pub(crate) fn setup(self, story: &Story, flags: &str) -> Told {
        let _lock = self.lock();
        story.run(&format!("k3s-vm setup {} {flags}", self.flags(story)))
    }

    /// Makes the disk and memory that every machine can begin from, where no test has made them yet.
    pub(crate) fn prepare(self) {
        let lock = self.lock();
        if !self.is_prepared() {
            let story = self.story("prepares");
            made(&story, &format!("k3s-vm setup {}", self.flags(&story)));
            story.run("k3s-vm reset --yes").succeeds();
        }
        drop(lock);
    }

    /// Whether they are there.
    pub(crate) fn is_prepared(self) -> bool {
        let kept = names(&self.cache().join("prepared"));
        let published =
            |name: &String| name.ends_with(".json") && !name.ends_with(".template.json");
        kept.iter().any(published)
    }

    /// Held by the one test that changes what others begin from.
    pub(crate) fn lock(self) -> File {
        let directory = self.directory();
        fs::create_dir_all(&directory).expect("created");
        let lock = File::create(directory.join("lock")).expect("created");
        lock.lock().expect("locked");
        lock
    }

    fn directory(self) -> PathBuf {
        let name = if self == Self::Newer {
            "qemu10"
        } else {
            "qemu"
        };
        Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("shared")
            .join(name)
    }
}
