//! What the reports of a guest come to: whether k3s has started, or whether there is no hope that it will.

use std::fmt;

use super::{Report, Stage};

/// k3s may end a few times while it finds its feet (its unit starts it again); this is a crash loop.
const MOST_EXITS: usize = 8;

/// How far the guest has come, by all its reports since the boot. A start of k3s makes up for all that was before.
#[derive(Debug, Default)]
pub struct Course {
    /// k3s has started and has not ended since.
    pub started: bool,
    /// k3s has been started, with whatever success.
    pub k3s_tried: bool,
    /// The last report, for people.
    pub last_stage: Option<String>,
    exits: usize,
    trouble: Option<Trouble>,
}

/// What does not mend itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// A step of the guest's own failed.
    Failed(String),
    /// It did not receive its identity: the step that failed.
    Handover(String),
    /// k3s does not read its datastore: sqlite's words, and whether there is a copy.
    Datastore(String),
    /// k3s ended again and again; how it did the last time.
    CrashLoop(String),
}

impl Course {
    /// Goes on by one report.
    pub fn take(&mut self, report: Report) {
        // What failed is told beside the stage before it.
        if !matches!(report.stage, Stage::Failed | Stage::HandoverFailed) {
            self.last_stage = Some(report.describe());
        }
        match report.stage {
            Stage::K3sStarted => {
                self.started = true;
                self.exits = 0;
                self.trouble = None;
            }
            Stage::K3sStarting => {
                self.k3s_tried = true;
                self.started = false;
            }
            Stage::K3sExited => {
                self.started = false;
                self.exits += 1;
                if self.exits >= MOST_EXITS {
                    self.trouble
                        .get_or_insert(Trouble::CrashLoop(report.detail));
                }
            }
            Stage::DatastoreDamaged => self.trouble = Some(Trouble::Datastore(report.detail)),
            Stage::Failed => self.trouble = Some(Trouble::Failed(report.detail)),
            Stage::HandoverFailed => self.trouble = Some(Trouble::Handover(report.detail)),
            _ => {}
        }
    }

    /// What was wrong may have been mended since: only what is reported from now on speaks against the guest.
    pub fn forgive(&mut self) {
        self.exits = 0;
        self.trouble = None;
    }

    /// Why there is no hope, if there is none.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(step) | Self::Handover(step) => write!(f, "the guest cannot {step}"),
            Self::Datastore(what) => write!(f, "k3s's datastore in the guest is damaged: {what}"),
            Self::CrashLoop(last) => {
                write!(f, "k3s ended {MOST_EXITS} times, the last time with {last}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(reports: &[&str]) -> Course {
        let mut course = Course::default();
        for report in reports {
            course.take(Report::parse(&format!("1.0 {report}")).expect("a report"));
        }
        course
    }

    #[test]
    fn a_start_makes_up_for_what_was_before() {
        let fell = ["k3s-starting", "k3s-exited exit-code 1"].repeat(8);
        let fallen = course(&fell);
        let words = "k3s ended 8 times, the last time with exit-code 1";
        assert_eq!(fallen.trouble().expect("hopeless").to_string(), words);
        assert!(course(&fell[2..]).trouble().is_none(), "it may still come");
        let up = course(&[&fell[..], &["k3s-starting", "k3s-started"]].concat());
        assert!(up.started && up.trouble().is_none());
        let ended = course(&["k3s-started", "k3s-exited success 0"]);
        assert!(!ended.started && ended.trouble().is_none());
    }

    #[test]
    fn a_damaged_datastore_is_named_through_all_exits() {
        let damaged = ["datastore-damaged torn", "k3s-exited exit-code 1"].repeat(9);
        let trouble = course(&damaged).trouble().cloned();
        assert_eq!(trouble, Some(Trouble::Datastore("torn".to_owned())));
    }
}
