//! The guest's progress reports: lines on a virtio-serial port that QEMU writes to a file.
//!
//! A line is `<seconds of uptime> <stage> [detail]`. The guest is not trusted with the terminal: what it says is shown
//! without control characters and at a bounded length.

use std::{
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use anstream::adapter::strip_str;

use crate::base::files;

/// How far the guest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// User space runs.
    Booted,
    /// The root file system has its size.
    DiskGrown,
    /// The root file system keeps the image's size; the detail says why.
    DiskNotGrown,
    /// The k3s release is in its place.
    K3sInstalled,
    /// The disk holds what all VMs have in common, and nothing else; the guest waits for the host to keep it.
    Prepared,
    /// The host did not keep it.
    CaptureSkipped,
    /// The guest did not receive its identity; the detail is the step that failed.
    IdentityFailed,
    /// systemd starts k3s.
    K3sStarting,
    /// k3s told systemd that it is ready; the node need not be.
    K3sStarted,
    /// k3s ended; its unit starts it again unless it was told to stop.
    K3sExited,
    /// k3s does not read its datastore; the detail says why, and whether there is a copy.
    DatastoreDamaged,
    /// The datastore's copy is in its place; the detail says of when it is.
    DatastoreRestored,
    /// Provisioning failed; the detail is the step that did.
    Failed,
    /// A stage that this program does not know.
    Other(String),
}

/// One line of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The guest's uptime.
    pub uptime: Duration,
    /// The stage it reached.
    pub stage: Stage,
    /// The detail of the report.
    pub detail: String,
}

const LONGEST_DETAIL: usize = 300;
/// Of a longer line, which is not a report, only the end counts.
const MOST_AT_ONCE: u64 = 1 << 20;

impl Report {
    /// Parses a line; `None` for one that is not a report.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.trim().splitn(3, ' ');
        let uptime = words
            .next()?
            .parse::<f64>()
            .ok()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())?;
        let stage = match words.next()? {
            "booted" => Stage::Booted,
            "disk-grown" => Stage::DiskGrown,
            "disk-not-grown" => Stage::DiskNotGrown,
            "k3s-installed" => Stage::K3sInstalled,
            "prepared" => Stage::Prepared,
            "capture-skipped" => Stage::CaptureSkipped,
            "identity-failed" => Stage::IdentityFailed,
            "k3s-starting" => Stage::K3sStarting,
            "k3s-started" => Stage::K3sStarted,
            "k3s-exited" => Stage::K3sExited,
            "datastore-damaged" => Stage::DatastoreDamaged,
            "datastore-restored" => Stage::DatastoreRestored,
            "failed" => Stage::Failed,
            other => Stage::Other(printable(other)),
        };
        Some(Self {
            uptime,
            stage,
            detail: printable(words.next().unwrap_or_default()),
        })
    }

    /// systemd's result and k3s's last error, of a report that k3s exited ("exit-code 1: no default routes found").
    pub fn exit(&self) -> (&str, Option<&str>) {
        match self.detail.split_once(": ") {
            Some((result, error)) => (result, Some(error)),
            None => (&self.detail, None),
        }
    }

    /// As a text, without the error that k3s ended with.
    pub fn headline(&self) -> String {
        match self.stage {
            Stage::K3sExited => format!("k3s ended ({})", self.exit().0),
            _ => self.describe(),
        }
    }

    /// As a line of progress.
    pub fn describe(&self) -> String {
        let detail = &self.detail;
        match &self.stage {
            Stage::Booted => "guest booted".to_owned(),
            Stage::DiskGrown => format!("disk grown to {detail}"),
            Stage::DiskNotGrown => format!("cannot grow the disk in the guest: {detail}"),
            Stage::K3sInstalled => format!("k3s {detail} installed"),
            Stage::Prepared => "the disk is prepared".to_owned(),
            Stage::CaptureSkipped => "the guest went on by itself".to_owned(),
            Stage::IdentityFailed => format!("the guest cannot {detail}"),
            Stage::K3sStarting => "k3s is starting".to_owned(),
            Stage::K3sStarted => "k3s started".to_owned(),
            Stage::K3sExited => match self.exit() {
                (result, Some(error)) => format!("k3s ended ({result}): {error}"),
                (result, None) => format!("k3s ended ({result})"),
            },
            Stage::DatastoreDamaged => format!("k3s's datastore is damaged: {detail}"),
            Stage::DatastoreRestored => format!("k3s's datastore of {detail} is put back"),
            Stage::Failed => format!("the guest cannot {detail}"),
            Stage::Other(stage) => format!("{stage} {detail}").trim_end().to_owned(),
        }
    }
}

/// Without what would steer a terminal, and not endless.
pub fn printable(text: &str) -> String {
    let text = strip_str(text).to_string();
    text.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_DETAIL)
        .collect()
}

/// The file of reports, read as it grows.
#[derive(Debug)]
pub struct StageLog {
    path: PathBuf,
    offset: u64,
    unfinished: Vec<u8>,
}

impl StageLog {
    /// From the file's beginning.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            offset: 0,
            unfinished: Vec::new(),
        }
    }

    /// The reports that have come since the last call; a line counts when it is whole.
    ///
    /// # Errors
    ///
    /// When the file exists and cannot be read.
    pub fn poll(&mut self) -> io::Result<Vec<Report>> {
        let mut file = match files::open_regular(&self.path) {
            Ok(file) => file,
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.source),
        };
        let length = file.metadata()?.len();
        // A file that was cut (see `flood`) begins again.
        if self.offset > length {
            self.offset = 0;
            self.unfinished.clear();
        }
        let end = length.saturating_sub(MOST_AT_ONCE);
        if self.offset < end {
            self.offset = end;
            // The end begins within a line, which is skipped.
            self.unfinished = b"?".to_vec();
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.take(MOST_AT_ONCE).read_to_end(&mut self.unfinished)?;
        self.offset += u64::try_from(read).unwrap_or_default();
        let mut reports = Vec::new();
        while let Some(end) = self.unfinished.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unfinished.drain(..=end).collect();
            reports.extend(Report::parse(&String::from_utf8_lossy(&line)));
        }
        if self.unfinished.len() > LONGEST_DETAIL * 4 {
            self.unfinished.clear();
        }
        Ok(reports)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use super::*;

    #[test]
    fn parses_only_reports() {
        let report = Report::parse("12.34 disk-grown 20G").expect("a report");
        assert_eq!(report.stage, Stage::DiskGrown);
        assert_eq!(report.uptime, Duration::from_millis(12_340));
        assert_eq!(report.describe(), "disk grown to 20G");
        for line in [
            "",
            "booted",
            "x booted",
            "-1 booted",
            "1e400 booted",
            "NaN booted",
            "5",
        ] {
            assert_eq!(Report::parse(line), None, "{line}");
        }
    }

    #[test]
    fn an_exit_has_the_error_of_k3s() {
        let report = Report::parse("9 k3s-exited exit-code 1: Error: a: b").expect("a report");
        assert_eq!(report.exit(), ("exit-code 1", Some("Error: a: b")));
        assert_eq!(report.describe(), "k3s ended (exit-code 1): Error: a: b");
        assert_eq!(report.headline(), "k3s ended (exit-code 1)");
        let report = Report::parse("9 k3s-exited success 0").expect("a report");
        assert_eq!(report.exit(), ("success 0", None));
        assert_eq!(report.describe(), "k3s ended (success 0)");
    }

    #[test]
    fn control_characters_are_removed() {
        let report = Report::parse("1 failed \u{1b}]0;owned\u{7}x").expect("a report");
        assert_eq!(report.detail, "x");
        assert_eq!(printable("\u{1b}[H\u{1b}[1;31mred\u{8}\u{7f}"), "red");
        assert_eq!(printable(&"x".repeat(10_000)).len(), LONGEST_DETAIL);
    }

    #[test]
    fn incomplete_lines_wait_for_the_rest() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("stages.log");
        let mut log = StageLog::new(path.clone());
        assert_eq!(log.poll().expect("no file yet"), []);
        let mut file = File::create(&path).expect("created");
        file.write_all(b"1.0 booted\n2.0 k3s-ins").expect("written");
        assert_eq!(log.poll().expect("read").len(), 1);
        file.write_all(b"talled v1\n").expect("written");
        assert_eq!(log.poll().expect("read")[0].describe(), "k3s v1 installed");
        assert_eq!(log.poll().expect("read"), []);
        std::fs::write(&path, "3.0 k3s-started\n").expect("cut");
        assert_eq!(log.poll().expect("read")[0].describe(), "k3s started");
        let flood = format!("{}\n9.0 booted\n", "1 ".repeat(1 << 20));
        std::fs::write(&path, flood).expect("flooded");
        let reports = log.poll().expect("read");
        assert_eq!((reports.len(), &reports[0].stage), (1, &Stage::Booted));
    }
}
