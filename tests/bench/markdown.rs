//! How figures are written: seconds, and tables in Markdown, padded so that a terminal shows them well.

use std::fmt::Write;

/// A table. The first line is its head.
pub(crate) fn table(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, cell) in line.iter().enumerate() {
            let _ = write!(text, "| {cell:<0$} ", width(column));
        }
        text += "|\n";
        if number == 0 {
            text += &"|---".repeat(line.len());
            text += "|\n";
        }
    }
    text
}

/// Seconds with their unit.
pub(crate) fn seconds(value: f64) -> String {
    if value < 0.0001 {
        "below 0.1 ms".to_owned()
    } else if value < 1.0 {
        format!("{:.1} ms", value * 1000.0)
    } else {
        format!("{value:.1} s")
    }
}
