//! Edits a JSON document in its text: all other bytes are unchanged.

use std::ops::Range;

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value};

/// The text of an object.
pub(super) struct JsonText(pub(super) String);

impl JsonText {
    /// Removes the entries that are `gone` from the list `key`, and appends `others`; `None` for a text in an unknown
    /// layout.
    pub(super) fn edit(&mut self, key: &str, gone: &[bool], others: &[Value]) -> Option<()> {
        for index in (0..gone.len()).rev().filter(|&index| gone[index]) {
            let list = self.value_of(key)?;
            let entries = self.entries(&list)?;
            let taken = match (entries.get(index + 1), index.checked_sub(1)) {
                (Some(next), _) => entries[index].start..next.start,
                (None, Some(before)) => entries[before].end..entries[index].end,
                (None, None) => list.start + 1..list.end - 1,
            };
            self.0.replace_range(taken, "");
        }
        for other in others {
            self.append(key, other)?;
        }
        Some(())
    }

    /// Sets a key to a text.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Option<()> {
        let place = self.value_of(key)?;
        self.0.replace_range(place, &Value::from(value).to_string());
        Some(())
    }

    fn append(&mut self, key: &str, entry: &Value) -> Option<()> {
        let unit = self.unit();
        let (outer, inner) = match &unit {
            Some(unit) => (format!("\n{unit}"), format!("\n{unit}{unit}")),
            None => (String::new(), String::new()),
        };
        let is_there = self
            .value_of(key)
            .is_some_and(|it| self.0[it].starts_with('['));
        if !is_there {
            match self.value_of(key) {
                Some(null) => self.0.replace_range(null, "[]"),
                None => {
                    let end = self.0.rfind('}')?;
                    let before = self.0[..end].trim_end().len();
                    let comma = if self.0[..before].ends_with('{') {
                        ""
                    } else {
                        ","
                    };
                    let end = if unit.is_some() { "\n" } else { "" };
                    let member = format!("{comma}{outer}\"{key}\": []{end}");
                    self.0.replace_range(before..self.0.rfind('}')?, &member);
                }
            }
        }
        let list = self.value_of(key)?;
        let entries = self.entries(&list)?;
        let (at, separator, end) = match (entries.first(), entries.last()) {
            (Some(first), Some(last)) => {
                let separator = self.0[list.start + 1..first.start].to_owned();
                (last.end..last.end, separator, String::new())
            }
            _ => (list.start + 1..list.end - 1, inner, outer),
        };
        let comma = if entries.is_empty() { "" } else { "," };
        let text = match separator.rsplit_once('\n') {
            Some((_, indent)) => {
                let text = serde_json::to_string_pretty(entry).ok()?;
                let lines = text.lines().map(|line| {
                    let deep = line.len() - line.trim_start().len();
                    let unit = unit.as_deref().unwrap_or("  ").repeat(deep / 2);
                    format!("{unit}{}", line.trim_start())
                });
                lines.collect::<Vec<_>>().join(&format!("\n{indent}"))
            }
            None => entry.to_string(),
        };
        self.0
            .replace_range(at, &format!("{comma}{separator}{text}{end}"));
        Some(())
    }

    /// The indent of a line; none in a text of one line.
    fn unit(&self) -> Option<String> {
        let mut lines = self.0.lines().skip(1);
        let line = lines.find(|line| line.starts_with([' ', '\t']))?;
        let deep = line.len() - line.trim_start().len();
        Some(line[..deep].to_owned())
    }

    fn value_of(&self, key: &str) -> Option<Range<usize>> {
        let mut at = self.after(0, "{")?;
        loop {
            let end = self.end_of_value(at)?;
            let name: String = serde_json::from_str(&self.0[at..end]).ok()?;
            let start = self.after(end, ":")?;
            let end = self.end_of_value(start)?;
            if name == key {
                return Some(start..end);
            }
            at = self.after(end, ",")?;
        }
    }

    fn entries(&self, list: &Range<usize>) -> Option<Vec<Range<usize>>> {
        let mut entries = Vec::new();
        let mut at = self.after(list.start, "[")?;
        while at < list.end - 1 {
            let end = self.end_of_value(at)?;
            entries.push(at..end);
            match self.after(end, ",") {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(entries)
    }

    /// The position of the next token after `mark`.
    fn after(&self, at: usize, mark: &str) -> Option<usize> {
        let rest = self.0[at..].trim_start().strip_prefix(mark)?.trim_start();
        Some(self.0.len() - rest.len())
    }

    fn end_of_value(&self, at: usize) -> Option<usize> {
        let mut values = Deserializer::from_str(&self.0[at..]).into_iter::<IgnoredAny>();
        values.next()?.ok()?;
        Some(at + values.byte_offset())
    }
}
