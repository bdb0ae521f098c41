//! The state of a boot by the guest's reports: whether k3s has started or has failed.

use std::fmt;

use super::{Report, Stage};

/// Exits of k3s in a row that are a crash loop, for whatever reasons: its unit starts it again, and it may need a few
/// tries.
const MOST_EXITS: usize = 8;
/// Exits in a row that are a crash loop when k3s names the same error each time, unless that is one of [`PASSING`].
const SAME_EXITS: usize = 3;
/// Words of errors that a slow guest has and that pass: k3s was too late for something of its own, and is quicker at its
/// next start. An emulated guest has had "Failed to initialize CSINode after retrying" several times before it came up.
const PASSING: [&str; 8] = [
    "after retrying",
    "timed out",
    "timeout",
    "deadline exceeded",
    "context canceled",
    "connection refused",
    "not ready",
    "election lost",
];

/// How far the guest has come, by all its reports since the boot. A start of k3s makes up for all that was before.
#[derive(Debug, Default)]
pub struct BootState {
    /// k3s has started and has not ended since.
    pub started: bool,
    /// k3s has been started, with whatever success.
    pub k3s_tried: bool,
    /// The last report, as a text.
    pub last_stage: Option<String>,
    exits: usize,
    same: Option<SameExits>,
    fault: Option<GuestFault>,
}

/// Exits in a row with the same error.
#[derive(Debug)]
struct SameExits {
    error: String,
    count: usize,
}

/// A fault that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestFault {
    /// A step of the guest's own failed.
    Failed(String),
    /// It did not receive its identity: the step that failed.
    IdentityNotReceived(String),
    /// k3s does not read its datastore: sqlite's words, and whether there is a copy.
    Datastore(String),
    /// k3s ended again and again.
    CrashLoop(CrashLoop),
}

/// The end of a k3s that ended before, and before that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashLoop {
    /// The number of ends.
    pub exits: usize,
    /// systemd's result and k3s's exit status.
    pub result: String,
    /// k3s's last error.
    pub error: Option<String>,
    /// All of the ends had this error.
    pub always: bool,
}

impl BootState {
    /// Adds one report.
    pub fn add(&mut self, report: Report) {
        if !matches!(report.stage, Stage::K3sStarting | Stage::K3sExited) {
            // Anything else is progress.
            self.same = None;
        }
        // A failure is shown beside the stage before it.
        if !matches!(report.stage, Stage::Failed | Stage::IdentityFailed) {
            self.last_stage = Some(report.describe());
        }
        match report.stage {
            Stage::K3sStarted => {
                self.started = true;
                self.exits = 0;
                self.fault = None;
            }
            Stage::K3sStarting => {
                self.k3s_tried = true;
                self.started = false;
            }
            Stage::K3sExited => {
                self.started = false;
                self.exit(&report);
            }
            Stage::DatastoreDamaged => self.fault = Some(GuestFault::Datastore(report.detail)),
            Stage::Failed => self.fault = Some(GuestFault::Failed(report.detail)),
            Stage::IdentityFailed => {
                self.fault = Some(GuestFault::IdentityNotReceived(report.detail))
            }
            _ => {}
        }
    }

    fn exit(&mut self, report: &Report) {
        self.exits += 1;
        // The error is part of the reason.
        self.last_stage = Some(report.headline());
        let (result, error) = report.exit();
        let same = self.count_same(error);
        let lasting = result.starts_with("exit-code") && error.is_some_and(|it| !passes(it));
        let always = lasting && same >= SAME_EXITS;
        if always || self.exits >= MOST_EXITS {
            let exits = if always { same } else { self.exits };
            self.fault.get_or_insert(GuestFault::CrashLoop(CrashLoop {
                exits,
                result: result.to_owned(),
                error: error.map(str::to_owned),
                always,
            }));
        }
    }

    /// How often in a row k3s has ended with that error; never, if it names none.
    fn count_same(&mut self, error: Option<&str>) -> usize {
        let Some(error) = error.map(without_numbers) else {
            self.same = None;
            return 0;
        };
        let before = self.same.take().filter(|it| it.error == error);
        let count = 1 + before.map_or(0, |it| it.count);
        self.same = Some(SameExits { error, count });
        count
    }

    /// Forgets the faults so far, which may have been fixed since. Only later reports count against the guest.
    pub fn clear_faults(&mut self) {
        self.exits = 0;
        self.same = None;
        self.fault = None;
    }

    /// The fault that keeps the guest from becoming ready.
    pub fn fault(&self) -> Option<&GuestFault> {
        self.fault.as_ref()
    }
}

impl fmt::Display for GuestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(step) | Self::IdentityNotReceived(step) => {
                write!(f, "the guest cannot {step}")
            }
            Self::Datastore(what) => write!(f, "k3s's datastore in the guest is damaged: {what}"),
            Self::CrashLoop(it) => it.fmt(f),
        }
    }
}

impl fmt::Display for CrashLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (exits, result) = (self.exits, &self.result);
        match &self.error {
            Some(error) if self.always => {
                write!(
                    f,
                    "k3s cannot start: {error} ({result}, {exits} times in a row)"
                )
            }
            Some(error) => write!(
                f,
                "k3s ended {exits} times, the last time with {result}: {error}"
            ),
            None => write!(f, "k3s ended {exits} times, the last time with {result}"),
        }
    }
}

fn passes(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    PASSING.iter().any(|words| error.contains(words))
}

/// An error without what differs from one time to the next: times, durations, process ids, ports, addresses.
fn without_numbers(error: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || ".:-_+".contains(c);
    let words = error.split(|c| !is_part(c)).filter(|word| !word.is_empty());
    let words = words.map(|word| match word.contains(|c: char| c.is_ascii_digit()) {
        true => "#",
        false => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(reports: &[&str]) -> BootState {
        let mut course = BootState::default();
        for report in reports {
            course.add(Report::parse(&format!("1.0 {report}")).expect("a report"));
        }
        course
    }

    #[test]
    fn a_start_resets_earlier_faults() {
        let fell = ["k3s-starting", "k3s-exited exit-code 1"].repeat(8);
        let fallen = course(&fell);
        let words = "k3s ended 8 times, the last time with exit-code 1";
        assert_eq!(fallen.fault().expect("hopeless").to_string(), words);
        assert!(course(&fell[2..]).fault().is_none(), "it may still come");
        let up = course(&[&fell[..], &["k3s-starting", "k3s-started"]].concat());
        assert!(up.started && up.fault().is_none());
        let ended = course(&["k3s-started", "k3s-exited success 0"]);
        assert!(!ended.started && ended.fault().is_none());
    }

    const NO_ROUTE: &str =
        r#"k3s-exited exit-code 1: Error: no default routes found in "/proc/net/route""#;

    fn crash_loop(course: &BootState) -> Option<(usize, bool)> {
        match course.fault()? {
            GuestFault::CrashLoop(it) => Some((it.exits, it.always)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn the_same_error_three_times_in_a_row_is_enough() {
        let row = ["k3s-starting", NO_ROUTE].repeat(3);
        assert_eq!(crash_loop(&course(&row)), Some((3, true)));
        assert_eq!(crash_loop(&course(&row[..5])), None);
        let words = "k3s cannot start: Error: no default routes found in \"/proc/net/route\" (exit-code 1, 3 times in a row)";
        assert_eq!(course(&row).fault().expect("hopeless").to_string(), words);
        assert_eq!(
            course(&row).last_stage.as_deref(),
            Some("k3s ended (exit-code 1)")
        );
        for between in [
            "datastore-restored 2026",
            "k3s-started",
            "k3s-exited exit-code 1: another",
            "k3s-exited success 0",
        ] {
            let broken = [&row[..4], &[between], &row[4..]].concat();
            assert_eq!(crash_loop(&course(&broken)), None, "{between}");
        }
        let mut forgiven = course(&row);
        forgiven.clear_faults();
        forgiven.add(Report::parse(&format!("9.0 {NO_ROUTE}")).expect("a report"));
        assert_eq!(crash_loop(&forgiven), None);
    }

    #[test]
    fn numbers_do_not_distinguish_errors() {
        let after = |time: &str, pid: u32, port: u16| {
            format!(
                "k3s-exited exit-code 1: [{time}] pid {pid}: listen tcp 10.0.2.15:{port}: bind: address already in use"
            )
        };
        let reports = [
            after("1.5s", 812, 6443),
            after("1m2.5s", 1290, 6444),
            after("340ms", 7, 6443),
        ];
        let reports: Vec<&str> = reports.iter().map(String::as_str).collect();
        assert_eq!(crash_loop(&course(&reports)), Some((3, true)));
        let same = "k3s-exited exit-code 1: cannot read /etc/rancher/k3s/config.yaml";
        let other = "k3s-exited exit-code 1: cannot read /etc/rancher/k3s/registries.yaml";
        assert_eq!(crash_loop(&course(&[same, same, other])), None);
    }

    #[test]
    fn transient_errors_have_more_tries() {
        for error in [
            "exit-code 255: Failed to initialize CSINode after retrying: timed out waiting for the condition",
            "exit-code 1: Get https://127.0.0.1:6444/readyz: context deadline exceeded",
            "signal 9: Running kubelet",
            "exit-code 1",
        ] {
            let report = format!("k3s-exited {error}");
            let row = [report.as_str()].repeat(8);
            assert_eq!(crash_loop(&course(&row[1..])), None, "{error}");
            assert_eq!(crash_loop(&course(&row)), Some((8, false)), "{error}");
        }
    }

    #[test]
    fn a_damaged_datastore_is_named_through_all_exits() {
        let damaged = ["datastore-damaged torn", "k3s-exited exit-code 1"].repeat(9);
        let fault = course(&damaged).fault().cloned();
        assert_eq!(fault, Some(GuestFault::Datastore("torn".to_owned())));
    }
}
