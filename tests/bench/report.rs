//! What is shown: the table for people, and one JSON document for programs.

use serde_json::{Value, json};

use crate::{
    figures::{Beside, Figures, ROWS, Row, Series, Unit},
    host::Host,
    markdown::{seconds, table},
    ways::PHASES,
};

/// The layout of the JSON document.
const SCHEMA: u32 = 1;

/// Two tables in Markdown: the figures, and where the time of the boots went.
pub(crate) fn tables(figures: &Figures) -> String {
    let head = [
        "figure",
        "median",
        "least",
        "most",
        "beside it",
        "ratio",
        "target",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(ROWS.iter().filter_map(|row| cells(figures, row)));
    let mut head = vec!["seconds of".to_owned()];
    head.extend(PHASES.map(str::to_owned));
    let mut phases = vec![head];
    for (bar, seconds) in figures.bars() {
        let mut line = vec![bar.to_owned()];
        line.extend(seconds.map(|seconds| format!("{seconds:.1}")));
        phases.push(line);
    }
    format!("{}\n{}", table(&lines), table(&phases))
}

fn cells(figures: &Figures, row: &Row) -> Option<Vec<String>> {
    let series = figures.of(row.name)?;
    let beside = figures.beside(row);
    let what = match row.beside {
        Beside::Nothing => "",
        Beside::OldWay => "the old way",
        Beside::Row(name) => name,
    };
    let median = |series: &Series| shown(row.unit, series.median());
    Some(vec![
        row.name.to_owned(),
        median(&series),
        shown(row.unit, series.least()),
        shown(row.unit, series.most()),
        beside
            .as_ref()
            .map_or_else(String::new, |beside| format!("{what}: {}", median(beside))),
        ratio(&series, beside.as_ref()).map_or_else(String::new, |ratio| format!("{ratio:.2}")),
        match (row.at_most, row.beside) {
            (None, _) => String::new(),
            (Some(most), Beside::Nothing) => format!("≤ {}", shown(row.unit, most)),
            (Some(most), _) => format!("≤ {most}"),
        },
    ])
}

fn ratio(series: &Series, beside: Option<&Series>) -> Option<f64> {
    Some(series.median() / beside?.median())
}

/// A number with its unit.
pub(crate) fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Bytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
        Unit::Seconds => seconds(value),
    }
}

/// All that was measured, on what, and how busy that was.
pub(crate) fn document(figures: &Figures, host: &Host, loads: &[f64]) -> Value {
    let rows = ROWS.iter().filter_map(|row| {
        let series = figures.of(row.name)?;
        let beside = figures.beside(row);
        Some(json!({
            "name": row.name,
            "unit": match row.unit { Unit::Seconds => "seconds", Unit::Bytes => "bytes" },
            "program": numbers(&series),
            "beside": beside.as_ref().map(|series| json!({
                "what": match row.beside { Beside::Row(name) => name, _ => "the old way" },
                "numbers": numbers(series),
            })),
            "ratio": ratio(&series, beside.as_ref()),
            "at_most": row.at_most,
        }))
    });
    let bars = figures.bars().into_iter();
    json!({
        "schema": SCHEMA,
        "machine": host.document(),
        "load_after_each_round": loads,
        "figures": rows.collect::<Vec<_>>(),
        "phases": PHASES,
        "boots": bars.map(|(name, seconds)| json!({ "name": name, "seconds": seconds })).collect::<Vec<_>>(),
    })
}

fn numbers(series: &Series) -> Value {
    json!({
        "median": series.median(), "least": series.least(), "most": series.most(), "values": series.values(),
    })
}
