//! The rows of the table, and what was measured for each. A new figure is a line in `ROWS` and a `push` where it is measured.

use crate::ways::Phases;

/// What a figure counts, which its numbers are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
}

/// What a figure is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    /// The same work done the old way, in the same run.
    OldWay,
    /// Another row.
    Row(&'static str),
}

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) beside: Beside,
    /// The most that is wanted: of the ratio where there is one, else of the median.
    pub(crate) at_most: Option<f64>,
}

pub(crate) const HELP: &str = "`--help`";
pub(crate) const ABSENT: &str = "`status` without a machine";
pub(crate) const STATUS: &str = "`status` of a running machine";
pub(crate) const STATUS_OWN: &str = "of it the program's processor time";
pub(crate) const OVERLAY: &str = "overlay of 20 GiB planned";
pub(crate) const SEED: &str = "seed built";
pub(crate) const FIRST: &str = "first `setup`, to node Ready";
pub(crate) const SECOND: &str = "`setup` of a second project: a clone, its identity its own";
pub(crate) const OTHER: &str = "the same with one CPU only: the prepared disk boots";
pub(crate) const TEMPLATE: &str = "first `setup --share-identity`: the template is made";
pub(crate) const CLONE: &str = "`setup --share-identity` of a clone";
pub(crate) const START: &str = "`start` after `stop`, to node Ready";
pub(crate) const STOP: &str = "`stop`";
pub(crate) const SUSPEND: &str = "`stop --suspend` of a guest that has touched 1 GiB";
pub(crate) const DD: &str = "`dd` of its memory's file, with `fsync`";
pub(crate) const RESUME: &str = "`start` after `stop --suspend`, to node Ready";
pub(crate) const SIZE: &str = "the program: one file, which needs libc, libm and libgcc";
pub(crate) const FIRST_WORK: &str = "processor time of QEMU in the first `setup`";
pub(crate) const SECOND_WORK: &str = "processor time of QEMU in the second `setup`";
pub(crate) const START_WORK: &str = "processor time of QEMU in `start`";
pub(crate) const MEMORY: &str = "peak memory of `setup`";
pub(crate) const QEMU_MEMORY: &str = "peak memory of QEMU in `setup`";
pub(crate) const WRITTEN: &str = "bytes written by `setup`, QEMU's included";
pub(crate) const SECOND_WRITTEN: &str = "bytes written by the second `setup`";
pub(crate) const DISK: &str = "disk used by the project after `setup`";
pub(crate) const SAVED: &str = "disk used by the memory of a suspended machine";
pub(crate) const CACHE: &str = "disk used by the cache after `setup`";

/// All lines, in their order.
pub(crate) const ROWS: &[Row] = &[
    time(FIRST, Beside::OldWay, Some(0.7)),
    time(SECOND, Beside::Row(FIRST), Some(0.4)),
    time(OTHER, Beside::Row(FIRST), None),
    time(TEMPLATE, Beside::Row(FIRST), None),
    time(CLONE, Beside::Row(FIRST), Some(0.1)),
    time(START, Beside::OldWay, Some(0.5)),
    time(RESUME, Beside::Row(START), Some(0.1)),
    time(STOP, Beside::OldWay, None),
    time(SUSPEND, Beside::Row(DD), Some(2.0)),
    time(DD, Beside::Nothing, None),
    time(STATUS, Beside::Nothing, Some(0.050)),
    time(STATUS_OWN, Beside::Nothing, None),
    time(ABSENT, Beside::Nothing, None),
    time(HELP, Beside::Nothing, None),
    time(OVERLAY, Beside::Nothing, None),
    time(SEED, Beside::Nothing, None),
    time(FIRST_WORK, Beside::OldWay, None),
    time(SECOND_WORK, Beside::Row(FIRST_WORK), None),
    time(START_WORK, Beside::OldWay, None),
    bytes(MEMORY, Beside::Nothing),
    bytes(QEMU_MEMORY, Beside::OldWay),
    bytes(WRITTEN, Beside::OldWay),
    bytes(SECOND_WRITTEN, Beside::Row(WRITTEN)),
    bytes(DISK, Beside::OldWay),
    bytes(SAVED, Beside::Nothing),
    bytes(CACHE, Beside::Nothing),
    bytes(SIZE, Beside::Nothing),
];

const fn time(name: &'static str, beside: Beside, at_most: Option<f64>) -> Row {
    Row {
        name,
        unit: Unit::Seconds,
        beside,
        at_most,
    }
}

const fn bytes(name: &'static str, beside: Beside) -> Row {
    Row {
        name,
        unit: Unit::Bytes,
        beside,
        at_most: None,
    }
}

/// The bars of the picture, in their order; those that were measured are shown.
pub(crate) const OLD_SETUP: &str = "setup, the old way";
pub(crate) const FIRST_SETUP: &str = "first setup";
pub(crate) const SECOND_SETUP: &str = "setup of a second project";
pub(crate) const OTHER_SETUP: &str = "with one CPU only";
pub(crate) const CLONED: &str = "clone with the same identity";
pub(crate) const OLD_START: &str = "start, the old way";
pub(crate) const NEW_START: &str = "start";
const BARS: &[&str] = &[
    OLD_SETUP,
    FIRST_SETUP,
    SECOND_SETUP,
    OTHER_SETUP,
    CLONED,
    OLD_START,
    NEW_START,
];

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    program: Vec<(&'static str, f64)>,
    old_way: Vec<(&'static str, f64)>,
    phases: Vec<(&'static str, Phases)>,
}

/// Numbers of one kind, sorted.
#[derive(Debug, Clone)]
pub(crate) struct Series(Vec<f64>);

impl Figures {
    /// One more of the program's.
    pub(crate) fn push(&mut self, row: &'static str, value: f64) {
        self.program.push((row, value));
    }

    pub(crate) fn extend(&mut self, row: &'static str, values: Vec<f64>) {
        self.program
            .extend(values.into_iter().map(|value| (row, value)));
    }

    /// One more of the old way's.
    pub(crate) fn push_old(&mut self, row: &'static str, value: f64) {
        self.old_way.push((row, value));
    }

    pub(crate) fn push_phases(&mut self, bar: &'static str, phases: Phases) {
        self.phases.push((bar, phases));
    }

    /// What the program's runs came to.
    pub(crate) fn of(&self, row: &str) -> Option<Series> {
        Series::of(&self.program, row)
    }

    /// What the row is compared with, if it was measured.
    pub(crate) fn beside(&self, row: &Row) -> Option<Series> {
        match row.beside {
            Beside::Nothing => None,
            Beside::OldWay => Series::of(&self.old_way, row.name),
            Beside::Row(name) => self.of(name),
        }
    }

    /// The bars, each with the median of each phase.
    pub(crate) fn bars(&self) -> Vec<(&'static str, Phases)> {
        let median = |bar: &str, phase: usize| {
            let runs = self.phases.iter().filter(|(name, _)| *name == bar);
            Series::sorted(runs.map(|(_, phases)| phases[phase]).collect())
                .map_or(0.0, |series| series.median())
        };
        BARS.iter()
            .filter(|bar| self.phases.iter().any(|(name, _)| name == *bar))
            .map(|bar| (*bar, std::array::from_fn(|phase| median(bar, phase))))
            .collect()
    }
}

impl Series {
    fn of(values: &[(&str, f64)], row: &str) -> Option<Self> {
        let mine = values.iter().filter(|(name, _)| *name == row);
        Self::sorted(mine.map(|(_, value)| *value).collect())
    }

    fn sorted(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self(values))
    }

    pub(crate) fn values(&self) -> &[f64] {
        &self.0
    }

    pub(crate) fn median(&self) -> f64 {
        let (last, middle) = (self.0.len() - 1, self.0.len() / 2);
        f64::midpoint(self.0[last / 2], self.0[middle])
    }

    pub(crate) fn least(&self) -> f64 {
        self.0[0]
    }

    pub(crate) fn most(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}
