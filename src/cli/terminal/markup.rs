//! The small part of Markdown that the help topics use, for terminals and for manual pages: headings, paragraphs, bullet
//! lists, fenced code, tables and `code` in a line.

use std::fmt::Write;

use anstyle::Style;

const HEADING: Style = Style::new().bold();

/// The text width inside a manual page, in which tables are laid out.
const MAN_WIDTH: usize = 72;

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
enum Block<'a> {
    Title(&'a str),
    Heading(&'a str),
    Paragraph(String),
    Bullet(String),
    Code(Vec<&'a str>),
    Table(Vec<Vec<&'a str>>),
}

fn parse(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let joined = |first: &str, lines: &mut std::iter::Peekable<std::str::Lines<'_>>| {
            let mut all = first.trim().to_owned();
            while let Some(more) = lines.next_if(|line| continues(line)) {
                all.push(' ');
                all.push_str(more.trim());
            }
            all
        };
        blocks.push(if line.is_empty() {
            continue;
        } else if let Some(title) = line.strip_prefix("# ") {
            Block::Title(title)
        } else if let Some(heading) = line.strip_prefix("## ") {
            Block::Heading(heading)
        } else if let Some(item) = line.strip_prefix("- ") {
            Block::Bullet(joined(item, &mut lines))
        } else if line.starts_with("```") {
            Block::Code(
                lines
                    .by_ref()
                    .take_while(|line| !line.starts_with("```"))
                    .collect(),
            )
        } else if line.starts_with('|') {
            let mut rows = vec![cells(line)];
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                rows.push(cells(row));
            }
            // The rule below the header, and a header of empty cells.
            rows.retain(|row| !row.iter().all(|cell| cell.trim_matches('-').is_empty()));
            Block::Table(rows)
        } else {
            Block::Paragraph(joined(line, &mut lines))
        });
    }
    blocks
}

/// A line that continues a paragraph or a bullet.
fn continues(line: &str) -> bool {
    !line.is_empty()
        && !["#", "- ", "```", "|"]
            .iter()
            .any(|it| line.starts_with(it))
}

fn cells(row: &str) -> Vec<&str> {
    let row = row.trim().trim_start_matches('|');
    let row = row.strip_suffix('|').unwrap_or(row);
    row.split('|').map(str::trim).collect()
}

/// The text for a terminal of that width, with bold headings.
pub(crate) fn to_terminal(text: &str, width: usize) -> String {
    let mut shown = String::new();
    let mut after_bullet = false;
    for block in parse(text) {
        let is_bullet = matches!(block, Block::Bullet(_));
        let is_next_bullet = is_bullet && after_bullet;
        if !shown.is_empty() && !is_next_bullet {
            shown.push('\n');
        }
        after_bullet = is_bullet;
        let lines = match block {
            Block::Title(text) | Block::Heading(text) => {
                vec![format!("{HEADING}{text}{HEADING:#}")]
            }
            Block::Paragraph(text) => wrap(&text, width),
            Block::Bullet(text) => hanging("- ", wrap(&text, width - 2)),
            Block::Code(lines) => lines.iter().map(|line| format!("    {line}")).collect(),
            Block::Table(rows) => table(&rows, width),
        };
        for line in lines {
            shown.push_str(line.trim_end());
            shown.push('\n');
        }
    }
    shown
}

/// The lines of a text, none longer than `width` unless a word is.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let line = lines.last_mut().expect("there is always a last line");
        if line.is_empty() {
            line.push_str(word);
        } else if length(line) + 1 + length(word) <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// The first line after `mark`, the others below the first.
fn hanging(mark: &str, lines: Vec<String>) -> Vec<String> {
    let indented = lines.into_iter().enumerate().map(|(index, line)| {
        let before = if index == 0 { mark } else { "  " };
        format!("{before}{line}")
    });
    indented.collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// A table with columns as wide as needed, wrapped if it is too wide.
fn table(rows: &[Vec<&str>], width: usize) -> Vec<String> {
    const GAP: usize = 2;
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let widest = |column: usize, of: fn(&str) -> usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| of(cell)).max().unwrap_or_default()
    };
    let longest_word = |cell: &str| cell.split(' ').map(length).max().unwrap_or_default();
    let least: Vec<usize> = (0..columns).map(|it| widest(it, longest_word)).collect();
    let mut widths: Vec<usize> = (0..columns).map(|it| widest(it, length)).collect();
    while widths.iter().sum::<usize>() + GAP * columns.saturating_sub(1) > width {
        let can_shrink = (0..columns).filter(|&it| widths[it] > least[it]);
        let Some(column) = can_shrink.max_by_key(|&it| widths[it]) else {
            break;
        };
        widths[column] -= 1;
    }
    let mut lines = Vec::new();
    for row in rows {
        let cells: Vec<Vec<String>> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| wrap(cell, width))
            .collect();
        for index in 0..cells.iter().map(Vec::len).max().unwrap_or_default() {
            let mut line = String::new();
            for (cell, &width) in cells.iter().zip(&widths) {
                let text = cell.get(index).map_or("", String::as_str);
                let _ = write!(line, "{text:width$}{:GAP$}", "");
            }
            lines.push(line);
        }
    }
    lines
}

/// The text for a manual page; its headings become the macro `heading`, like `.SH`.
pub(crate) fn to_roff(text: &str, heading: &str) -> String {
    let mut roff = String::new();
    for block in parse(text) {
        let _ = match block {
            Block::Title(_) => Ok(()),
            Block::Heading(text) => writeln!(roff, "{heading} \"{}\"", escape(text)),
            Block::Paragraph(text) => writeln!(roff, ".PP\n{}", in_line(&text)),
            Block::Bullet(text) => writeln!(roff, ".IP \\(bu 2\n{}", in_line(&text)),
            Block::Code(lines) => write!(roff, "{}", literal(lines.iter().copied())),
            Block::Table(rows) => {
                let lines = table(&rows, MAN_WIDTH);
                write!(roff, "{}", literal(lines.iter().map(|it| it.trim_end())))
            }
        };
    }
    roff
}

/// Lines that keep their breaks.
pub(crate) fn literal<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let lines: String = lines.map(|line| escape(line) + "\n").collect();
    format!(".PP\n.RS 4\n.nf\n{lines}.fi\n.RE\n")
}

/// Text that is filled, with its `code` in bold.
pub(crate) fn in_line(text: &str) -> String {
    let mut roff = String::new();
    for (index, part) in escape(text).split('`').enumerate() {
        if index > 0 {
            roff.push_str(if index % 2 == 1 { "\\fB" } else { "\\fR" });
        }
        roff.push_str(part);
    }
    roff
}

/// A line that the formatter prints as it is.
fn escape(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) {
        format!("\\&{line}")
    } else {
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Ports\n\nAll are `local`.\nAnd more.\n\n## List\n\n- one is\n  long\n- two\n\n```\n.x -a\n```\n\n\
        | a | b |\n|---|---|\n| `c` | some words |\n";

    #[test]
    fn a_terminal_shows_wrapped_text() {
        let shown = to_terminal(TEXT, 14);
        let plain = shown.replace("\x1b[1m", "*").replace("\x1b[0m", "*");
        assert_eq!(
            plain,
            "*Ports*\n\nAll are\n`local`. And\nmore.\n\n*List*\n\n- one is long\n- two\n\n    .x -a\n\na    b\n`c`  some\n     words\n"
        );
    }

    #[test]
    fn roff_requests_in_text_are_escaped() {
        assert_eq!(
            to_roff(TEXT, ".SH"),
            ".PP\nAll are \\fBlocal\\fR. And more.\n.SH \"List\"\n.IP \\(bu 2\none is long\n.IP \\(bu 2\ntwo\n\
             .PP\n.RS 4\n.nf\n\\&.x \\-a\n.fi\n.RE\n.PP\n.RS 4\n.nf\na    b\n`c`  some words\n.fi\n.RE\n"
        );
    }
}
