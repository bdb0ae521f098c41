//! The picture of the boots: a bar for each, a colour for each phase. It is read on light and on dark pages, where only
//! the text outside of the bars changes.

use std::fmt::Write;

use crate::ways::{PHASES, Phases};

/// Light enough for dark letters, and told apart by people who see fewer colours (after Okabe and Ito).
const COLOURS: [&str; PHASES.len()] = [
    "#a6a6a6", "#56b4e9", "#e69f00", "#2fb390", "#d58cb6", "#f0e442",
];
const WIDTH: f64 = 880.0;
const LEFT: f64 = 180.0;
const BAR: f64 = 26.0;
const STEP: f64 = 38.0;
const LEGEND: f64 = 62.0;
/// The room for a bar's total, right of the longest one.
const TOTAL: f64 = 76.0;
/// Narrower parts have no number in them.
const NUMBER: f64 = 26.0;

/// As an SVG document.
pub(crate) fn picture(bars: &[(&'static str, Phases)]) -> String {
    let longest = bars.iter().map(|(_, phases)| total(phases));
    let scale = (WIDTH - LEFT - TOTAL) / longest.fold(f64::MIN_POSITIVE, f64::max);
    let height = LEGEND + STEP * bars.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
         <title>Seconds to a node that is Ready, phase by phase</title>\n\
         <style>text {{ font: 13px sans-serif; fill: #1f2328 }} .number {{ font-size: 12px; text-anchor: middle; fill: #111 }} \
         .name {{ text-anchor: end }} .total {{ font-weight: bold }}\n\
         @media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} .number {{ fill: #111 }} }}</style>\n"
    );
    legend(&mut svg);
    for (number, (name, phases)) in bars.iter().enumerate() {
        bar(&mut svg, LEGEND + STEP * number as f64, name, phases, scale);
    }
    svg += "</svg>\n";
    svg
}

/// Two lines of three.
fn legend(svg: &mut String) {
    for (number, (phase, colour)) in PHASES.iter().zip(COLOURS).enumerate() {
        let (x, y) = (
            LEFT + 220.0 * (number % 3) as f64,
            6.0 + 24.0 * (number / 3) as f64,
        );
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"14\" height=\"14\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\">{phase}</text>",
            x + 20.0,
            y + 12.0
        );
    }
}

fn bar(svg: &mut String, y: f64, name: &str, phases: &Phases, scale: f64) {
    let base = y + BAR / 2.0 + 4.5;
    let _ = writeln!(
        svg,
        "<text class=\"name\" x=\"{}\" y=\"{base}\">{name}</text>",
        LEFT - 10.0
    );
    let mut x = LEFT;
    for ((seconds, colour), phase) in phases.iter().zip(COLOURS).zip(PHASES) {
        let width = seconds.max(0.0) * scale;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" fill=\"{colour}\">\
             <title>{phase}: {seconds:.1} s</title></rect>"
        );
        if width >= NUMBER {
            let _ = writeln!(
                svg,
                "<text class=\"number\" x=\"{:.1}\" y=\"{base}\">{seconds:.1}</text>",
                x + width / 2.0
            );
        }
        x += width;
    }
    let _ = writeln!(
        svg,
        "<text class=\"total\" x=\"{:.1}\" y=\"{base}\">{:.1} s</text>",
        x + 8.0,
        total(phases)
    );
}

fn total(phases: &Phases) -> f64 {
    phases.iter().sum()
}
