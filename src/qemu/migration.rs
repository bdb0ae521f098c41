//! Memory and devices of a paused guest, saved to a file and loaded from it: QEMU's migration, with a file at its other
//! end.
//!
//! Where QEMU has mapped-ram, each page has its place in the file, which is as sparse as the guest's memory. Before that
//! the file is the stream that another QEMU would be sent, in which a page of zeros takes a few bytes.

use std::{fs::File, path::Path, time::Duration};

use serde_json::{Value, json};
use tokio::{net::UnixStream, time::sleep};

use super::{Monitor, MonitorError, Version};

/// The first QEMU with mapped-ram.
const MAPPED_RAM: Version = Version { major: 9, minor: 0 };
/// Bytes a second: more than any disk writes. By default, QEMU limits itself.
const UNBOUNDED: u64 = 1 << 40;
/// How long QEMU may take without an answer: it writes the end of a file, and reads all of one, in one go.
const STEP_TIMEOUT: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(10);
/// QEMU's name of the passed file.
const PASSED: &str = "memory";

/// The layout of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Each page has its place.
    Mapped,
    /// Pages follow one another.
    Stream,
}

/// The reason why memory was not saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// QEMU reports a failure.
    #[error("{0}")]
    Failed(String),
    /// QEMU does not answer, or has ended.
    #[error(transparent)]
    Monitor(#[from] MonitorError),
}

impl Layout {
    /// The best layout of that QEMU.
    pub fn of(version: Version) -> Self {
        if version < MAPPED_RAM {
            Self::Stream
        } else {
            Self::Mapped
        }
    }

    /// The settings of both directions.
    fn settings(self) -> [(&'static str, Value); 2] {
        // Without "multifd": QEMU 10.0 crashed with it when the file system was full, because its threads used freed
        // memory.
        let capabilities = match self {
            Self::Mapped => json!([{ "capability": "mapped-ram", "state": true }]),
            Self::Stream => json!([]),
        };
        [
            (
                "migrate-set-capabilities",
                json!({ "capabilities": capabilities }),
            ),
            (
                "migrate-set-parameters",
                json!({ "max-bandwidth": UNBOUNDED }),
            ),
        ]
    }

    /// The target, as the argument of `migrate` and `migrate-incoming`. It has no path, so it needs no escaping.
    fn end(self, path: &Path) -> Value {
        match self {
            Self::Mapped => {
                let file = json!({
                    "transport": "file",
                    "filename": path.to_string_lossy(),
                    "offset": 0,
                });
                json!({ "channels": [{ "channel-type": "main", "addr": file }] })
            }
            Self::Stream => json!({ "uri": format!("fd:{PASSED}") }),
        }
    }
}

/// Saves memory and devices of a paused guest to the empty `file`, which is at `path`. QEMU is in its state
/// `postmigrate` then, and has closed its disks.
///
/// # Errors
///
/// [`MigrationError::Failed`] with QEMU's words: nothing is lost, and [`cancel`] continues the guest.
pub async fn save(
    monitor: &mut Monitor<UnixStream>,
    layout: Layout,
    path: &Path,
    file: &File,
) -> Result<(), MigrationError> {
    migrate(monitor, "migrate", layout, path, file).await
}

/// Loads `file`, which is at `path`, into a QEMU that waits for it. The guest stays paused.
///
/// # Errors
///
/// When QEMU does not take it; it may have ended of it.
pub async fn load(
    monitor: &mut Monitor<UnixStream>,
    layout: Layout,
    path: &Path,
    file: &File,
) -> Result<(), MigrationError> {
    migrate(monitor, "migrate-incoming", layout, path, file).await
}

async fn migrate(
    monitor: &mut Monitor<UnixStream>,
    command: &str,
    layout: Layout,
    path: &Path,
    file: &File,
) -> Result<(), MigrationError> {
    monitor.wait_for_answers(STEP_TIMEOUT);
    for (command, arguments) in layout.settings() {
        monitor.raw(command, arguments).await?;
    }
    if layout == Layout::Stream {
        monitor.pass(PASSED, file).await?;
    }
    match monitor.raw(command, layout.end(path)).await {
        // Some devices of some hosts cannot be migrated.
        Err(MonitorError::Refused { reason, .. }) => return Err(MigrationError::Failed(reason)),
        other => other?,
    };
    loop {
        match progress(&monitor.raw("query-migrate", json!({})).await?) {
            Progress::UnderWay => sleep(POLL).await,
            Progress::Done => return Ok(()),
            Progress::Failed(reason) => return Err(MigrationError::Failed(reason)),
        }
    }
}

/// Cancels a save, so that the guest can continue.
///
/// # Errors
///
/// When QEMU does not answer.
pub async fn cancel(monitor: &mut Monitor<UnixStream>) -> Result<(), MonitorError> {
    loop {
        let answer = monitor.raw("query-migrate", json!({})).await?;
        let begun = answer.get("status").is_some();
        if !begun || !matches!(progress(&answer), Progress::UnderWay) {
            return Ok(());
        }
        monitor.raw("migrate_cancel", json!({})).await?;
        sleep(POLL).await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    UnderWay,
    Done,
    Failed(String),
}

/// Parses `query-migrate`, of which qapi's type lacks some values.
fn progress(answer: &Value) -> Progress {
    match answer.get("status").and_then(Value::as_str) {
        Some("completed") => Progress::Done,
        Some(status @ ("failed" | "cancelled")) => {
            let words = answer.get("error-desc").and_then(Value::as_str);
            Progress::Failed(words.unwrap_or(status).to_owned())
        }
        _ => Progress::UnderWay,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_qemu_version_has_its_commands() {
        let path = Path::new("/p/a,offset=0x1 \"b\"/.k3s-vm/memory");
        let of = |major, minor| Layout::of(Version { major, minor });
        for (major, minor) in [(6, 2), (7, 2), (8, 2)] {
            assert_eq!(of(major, minor), Layout::Stream);
            assert_eq!(of(major, minor).end(path), json!({ "uri": "fd:memory" }));
        }
        for (major, minor) in [(9, 0), (10, 0)] {
            let end = of(major, minor).end(path);
            let filename = &end["channels"][0]["addr"]["filename"];
            assert_eq!(filename, "/p/a,offset=0x1 \"b\"/.k3s-vm/memory");
        }
        let set = |layout: Layout| {
            layout
                .settings()
                .map(|(_, arguments)| arguments.to_string())
        };
        assert_eq!(
            set(Layout::Stream),
            [
                r#"{"capabilities":[]}"#,
                r#"{"max-bandwidth":1099511627776}"#
            ]
        );
        assert_eq!(
            set(Layout::Mapped),
            [
                r#"{"capabilities":[{"capability":"mapped-ram","state":true}]}"#,
                r#"{"max-bandwidth":1099511627776}"#
            ]
        );
    }

    #[test]
    fn qemus_messages_are_kept() {
        for (answer, expected) in [
            (json!({}), Progress::UnderWay),
            (json!({ "status": "setup" }), Progress::UnderWay),
            (
                json!({ "status": "active", "ram": { "new": 1 } }),
                Progress::UnderWay,
            ),
            (json!({ "status": "completed" }), Progress::Done),
            (
                json!({ "status": "failed", "error-desc": "disk on fire" }),
                Progress::Failed("disk on fire".into()),
            ),
            (
                json!({ "status": "failed" }),
                Progress::Failed("failed".into()),
            ),
        ] {
            assert_eq!(progress(&answer), expected, "{answer}");
        }
    }
}
