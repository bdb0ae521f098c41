//! The idle time of a VM, and the log of its idle watch.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use super::Project;
use crate::base::{
    FileError,
    as_text::deserialize_from_text,
    files::{self, PRIVATE},
};

/// A duration or never: `30m`, `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Idle(pub Option<Duration>);

impl FromStr for Idle {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, humantime::parse_duration(text)) {
            ("off" | "0", _) => Ok(Self(None)),
            (_, Ok(after)) if after.is_zero() => Ok(Self(None)),
            (_, Ok(after)) if after >= Duration::from_secs(1) => Ok(Self(Some(after))),
            _ => Err(format!(
                "invalid duration {text:?}: expected e.g. 30m or 2h, or off"
            )),
        }
    }
}

deserialize_from_text!(Idle);

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(after) => humantime::format_duration(after).fmt(f),
        }
    }
}

/// The number of notes that are kept.
const NOTES: usize = 100;

/// Adds a note to the log of the idle watch.
///
/// # Errors
///
/// When it cannot be written.
pub fn note(project: &Project, what: &str) -> Result<(), FileError> {
    let log = project.idle_log();
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    let mut text = files::tail(&log, NOTES - 1);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text += &format!("{now} {}\n", what.replace('\n', " "));
    files::write(&log, text.as_bytes(), PRIVATE)
}

/// The last note, unless it is older than `since`, in seconds since 1970.
pub fn noted(project: &Project, since: u64) -> Option<String> {
    let text = files::tail(&project.idle_log(), 1);
    let (time, what) = text.lines().last()?.split_once(' ')?;
    let time = humantime::parse_rfc3339(time).ok()?;
    let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))?;
    (time >= since).then(|| what.to_owned())
}

/// Records a use of the VM for its idle watch, if one runs.
pub fn touch(project: &Project) {
    let touched = files::open_regular(&project.used());
    let touched = touched.and_then(|file| {
        let set = file.set_modified(SystemTime::now());
        set.map_err(FileError::on("touch", &project.used()))
    });
    if let Err(error) = touched {
        tracing::trace!(%error, "no idle watch runs");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn parses_durations_and_off() {
        for (text, shown) in [
            ("30m", "30m"),
            ("90m", "1h 30m"),
            ("off", "off"),
            ("0", "off"),
            ("0s", "off"),
            ("1s", "1s"),
        ] {
            let idle: Result<Idle, String> = text.parse();
            assert_eq!(idle.map(|it| it.to_string()).as_deref(), Ok(shown));
        }
        for text in ["", "soon", "-1m", "5", "10ms", "on"] {
            assert!(text.parse::<Idle>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_current_note_is_shown() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let project = Project::at(directory.path());
        fs::create_dir(project.directory()).expect("created");
        assert_eq!(noted(&project, 0), None);
        for round in 0..NOTES + 5 {
            note(&project, &format!("round\n{round}")).expect("written");
        }
        assert_eq!(noted(&project, 0).as_deref(), Some("round 104"));
        assert_eq!(noted(&project, 1 << 36), None);
        let text = fs::read_to_string(project.idle_log()).expect("read");
        assert_eq!(text.lines().count(), NOTES);
    }
}
