//! What the machine of a story is made from. The tests take the stand-in for k3s on the guest that they build; a run on the
//! real thing takes an image and a release that users get.

use k3s_vm::base::Size;

use crate::{
    support::{VERSION, guest_image},
    transcript::Story,
};

/// What `setup` is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    /// A file, or an image of the catalogue.
    pub(crate) image: String,
    /// The release of k3s. Without one, `setup` takes what the stable channel names.
    pub(crate) k3s: Option<String>,
    /// Where releases are, if not on GitHub.
    pub(crate) mirror: Option<String>,
    /// Without one, `setup` takes the best that the host has.
    pub(crate) accelerator: Option<&'static str>,
    pub(crate) memory: Size,
    /// What is enough for a later boot.
    pub(crate) less_memory: Size,
}

impl Guest {
    /// The tests' own.
    pub(crate) fn stand_in(story: &Story) -> Self {
        Self {
            image: guest_image().display().to_string(),
            k3s: Some(VERSION.to_owned()),
            mirror: Some(story.env.mirror()),
            accelerator: Some("tcg"),
            memory: Size::mib(1536),
            less_memory: Size::mib(1280),
        }
    }

    /// The flags of `setup`.
    pub(crate) fn flags(&self) -> String {
        let Self { image, memory, .. } = self;
        let more = [
            ("--k3s-version", self.k3s.as_deref()),
            ("--k3s-mirror", self.mirror.as_deref()),
            ("--accel", self.accelerator),
        ];
        let more = more
            .into_iter()
            .filter_map(|(flag, value)| Some(format!(" {flag} '{}'", value?)));
        format!(
            "--image '{image}' --memory {memory}{}",
            more.collect::<String>()
        )
    }

    /// The release that the machine must have. What the stable channel named, only the machine knows.
    pub(crate) fn version(&self, story: &Story) -> String {
        let stable = || named(story, "/machine/k3s");
        self.k3s.clone().unwrap_or_else(stable)
    }

    /// The accelerator that QEMU must have.
    pub(crate) fn accelerator(&self, story: &Story) -> String {
        let best = || named(story, "/process/accelerator");
        self.accelerator.map_or_else(best, str::to_owned)
    }
}

/// What `status --json` says at `pointer`.
fn named(story: &Story, pointer: &str) -> String {
    let status = story.status();
    let named = status.pointer(pointer).and_then(|it| it.as_str());
    named
        .unwrap_or_else(|| panic!("{pointer} in {status}"))
        .into()
}
