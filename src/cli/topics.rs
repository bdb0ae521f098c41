//! The topics of `k3s-vm help`: texts that are too long for `--help`.

/// A text in the markup of [`crate::cli::terminal::markup`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Topic {
    /// Its name after `k3s-vm help`.
    pub(crate) name: &'static str,
    /// The whole text; its first line is the title.
    pub(crate) text: &'static str,
}

impl Topic {
    /// The title, without its mark.
    pub(crate) fn title(self) -> &'static str {
        let first = self.text.lines().next().unwrap_or_default();
        first.trim_start_matches("# ")
    }

    /// The text after the title.
    pub(crate) fn body(self) -> &'static str {
        self.text
            .split_once('\n')
            .map_or(self.text, |(_, body)| body)
    }
}

macro_rules! topics {
    ($($name:literal),+ $(,)?) => {
        /// All topics, in the order in which they are listed.
        pub(crate) const TOPICS: &[Topic] = &[$(Topic {
            name: $name,
            text: include_str!(concat!("topics/", $name, ".md")),
        }),+];
    };
}

// No topic has the name of a command, which `k3s-vm help` looks for first.
topics!(
    "config",
    "ports",
    "images",
    "mounts",
    "network",
    "offline",
    "snapshots",
    "upgrades",
    "clones",
    "json",
    "files",
    "security",
    "environment",
    "exit-codes",
    "troubleshooting",
    "internals",
);

/// The topic of that name.
pub(crate) fn find(name: &str) -> Option<Topic> {
    TOPICS.iter().copied().find(|topic| topic.name == name)
}

/// A line for each topic, indented by two spaces.
pub(crate) fn overview() -> String {
    let lines = TOPICS
        .iter()
        .map(|topic| format!("  {:<16} {}\n", topic.name, topic.title()));
    lines.collect()
}
