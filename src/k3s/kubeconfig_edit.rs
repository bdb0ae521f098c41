//! A VM's cluster, user and context in a kubeconfig of the user's own.
//!
//! All else in it stays byte for byte, comments too: the lines are edited as kubectl lays them out, and what comes of it
//! is read again. Only a text that says exactly what it should is ever written.

use std::{ops::Range, path::PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    base::{Name, yaml},
    k3s::kubeconfig::{Kubeconfig, OURS},
};

/// The lists that have one entry of a VM each, with the name of an entry.
const LISTS: [(&str, &str); 3] = [
    ("clusters", "cluster"),
    ("contexts", "context"),
    ("users", "user"),
];

const CURRENT: &str = "current-context";

/// A kubeconfig without contexts, clusters and users.
const EMPTY: &str = "apiVersion: v1\nkind: Config\npreferences: {}\n";

/// The reason why a kubeconfig is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The text is not a kubeconfig.
    #[error("invalid kubeconfig: {0}")]
    Malformed(String),
    /// An entry of the VM's name belongs to another program or project.
    #[error("its {what} {name} does not belong to this VM")]
    NotOurs {
        /// Cluster, user or context.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A valid kubeconfig, in a form of YAML that is not edited.
    #[error("its {0} are written in a form that k3s-vm does not edit")]
    Layout(&'static str),
}

/// The entries of a VM in a kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    /// The name of the cluster, the user and the context.
    pub name: String,
    /// Its project, if the context names one.
    pub project: Option<PathBuf>,
}

/// The VMs whose contexts are in the kubeconfig `text`; empty for any other text.
pub fn machines(text: &str) -> Vec<Entries> {
    let value = read(text).unwrap_or_default();
    let contexts = value["contexts"].as_array().into_iter().flatten();
    contexts
        .filter_map(|entry| {
            let extensions = entry["context"]["extensions"].as_array()?;
            let ours = extensions.iter().find(|it| it["name"] == OURS)?;
            Some(Entries {
                name: entry["name"].as_str()?.to_owned(),
                project: ours["extension"]["project"].as_str().map(PathBuf::from),
            })
        })
        .collect()
}

/// The kubeconfig `text` with the VM's entries, which replace its former ones.
///
/// # Errors
///
/// When it is not a kubeconfig, is laid out oddly, or has entries of that name that are not the VM's.
pub fn with(kubeconfig: &Kubeconfig, name: &Name, text: &str) -> Result<String, MergeError> {
    let before = read(text)?;
    require_ours(&before, name.as_str())?;
    let namespace = entry_of(&before, "contexts", name.as_str())
        .and_then(|it| it["context"]["namespace"].as_str())
        .map(str::to_owned);
    let kubeconfig = kubeconfig.clone().in_namespace(namespace);
    let ours = serde_json::to_value(&kubeconfig).map_err(malformed)?;
    // kubectl has an order of its own.
    let is_there = |(key, _): &(&str, &str)| {
        entry_of(&before, key, name.as_str()) == entry_of(&ours, key, name.as_str())
    };
    if LISTS.iter().all(is_there) {
        return Ok(text.to_owned());
    }
    edited(text, before, name.as_str(), Some(&ours))
}

/// The kubeconfig `text` without the entries called `name`, and `true` if that was the current context.
///
/// # Errors
///
/// Those of [`with`].
pub fn without(name: &str, text: &str) -> Result<(String, bool), MergeError> {
    let before = read(text)?;
    require_ours(&before, name)?;
    let current = before[CURRENT] == name;
    Ok((edited(text, before, name, None)?, current))
}

/// The name of the current context.
pub fn current(text: &str) -> Option<String> {
    let value = read(text).ok()?;
    let name = value[CURRENT].as_str().filter(|name| !name.is_empty())?;
    Some(name.to_owned())
}

fn malformed(error: impl std::fmt::Display) -> MergeError {
    MergeError::Malformed(error.to_string())
}

fn read(text: &str) -> Result<Value, MergeError> {
    let value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) if is_blank(text) => Value::Null,
        Err(_) => serde_saphyr::from_str(text)
            .map_err(|error| MergeError::Malformed(yaml::reason(&error)))?,
    };
    let lists_are_lists = LISTS.iter().all(|(key, _)| match &value[*key] {
        Value::Null => true,
        Value::Array(entries) => entries.iter().all(|it| it["name"].is_string()),
        _ => false,
    });
    match value {
        Value::Null => Ok(Value::Object(Map::new())),
        Value::Object(_) if lists_are_lists => Ok(value),
        _ => Err(malformed("it has no lists of clusters, users and contexts")),
    }
}

fn is_blank(text: &str) -> bool {
    text.lines().all(is_comment)
}

fn is_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#')
}

fn entry_of<'a>(value: &'a Value, key: &str, name: &str) -> Option<&'a Value> {
    value[key].as_array()?.iter().find(|it| it["name"] == name)
}

/// A VM's cluster is on this host's loopback, and its context refers to its user and cluster.
fn require_ours(value: &Value, name: &str) -> Result<(), MergeError> {
    let cluster = entry_of(value, "clusters", name).map(|it| {
        let server = it["cluster"]["server"].as_str().unwrap_or_default();
        server.starts_with("https://127.0.0.1:")
    });
    let context = entry_of(value, "contexts", name)
        .map(|it| it["context"]["cluster"] == name && it["context"]["user"] == name);
    // A user has no mark of its project.
    let user =
        entry_of(value, "users", name).map(|_| cluster == Some(true) || context == Some(true));
    let foreign = [("cluster", cluster), ("context", context), ("user", user)]
        .into_iter()
        .find(|(_, ours)| *ours == Some(false));
    match foreign {
        None => Ok(()),
        Some((what, _)) => Err(MergeError::NotOurs {
            what,
            name: name.to_owned(),
        }),
    }
}

/// The text without the entries called `name`, and with `ours`.
fn edited(
    text: &str,
    before: Value,
    name: &str,
    ours: Option<&Value>,
) -> Result<String, MergeError> {
    let is_json = text.trim_start().starts_with('{') && serde_json::from_str::<Value>(text).is_ok();
    let mut text = text.to_owned();
    let mut wanted = before;
    if is_blank(&text) && ours.is_some() {
        text += EMPTY;
        wanted = read(EMPTY)?;
    }
    let mut lines = Lines::of(&text);
    let mut json = JsonText(text.clone());
    for (key, _) in LISTS {
        let ours = ours.map(|it| it[key].as_array().cloned().unwrap_or_default());
        if ours.is_none() && entry_of(&wanted, key, name).is_none() {
            continue;
        }
        let gone = |entry: &Value| entry["name"] == name;
        let entries = wanted[key].as_array().cloned().unwrap_or_default();
        let (going, added): (Vec<bool>, _) = (
            entries.iter().map(gone).collect(),
            ours.as_deref().unwrap_or_default(),
        );
        if is_json {
            json.edit(key, &going, added)
                .ok_or(MergeError::Layout(key))?;
        } else {
            lines.edit(key, &going, added)?;
        }
        let kept = entries.into_iter().filter(|entry| !gone(entry));
        wanted[key] = kept.chain(ours.into_iter().flatten()).collect();
    }
    if ours.is_none() && wanted[CURRENT] == name {
        lines.set(CURRENT, "\"\"");
        let _ = json.set(CURRENT, "");
        wanted[CURRENT] = "".into();
    }
    let text = if is_json { json.0 } else { lines.0.concat() };
    match read(&text) {
        Ok(value) if value == wanted => Ok(text),
        _ => Err(MergeError::Layout("entries")),
    }
}

mod json_text;

use json_text::JsonText;

/// A kubeconfig in YAML, each line with its end.
struct Lines(Vec<String>);

impl Lines {
    fn of(text: &str) -> Self {
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
            last.push('\n');
        }
        Self(lines)
    }

    /// The line of a top-level key, and the rest of that line.
    fn find(&self, key: &str) -> Option<(usize, &str)> {
        self.0.iter().enumerate().find_map(|(index, line)| {
            let rest = line.strip_prefix(key)?.strip_prefix(':')?;
            let rest = rest.trim();
            let rest = rest.split(" #").next().unwrap_or_default().trim();
            Some((index, if rest.starts_with('#') { "" } else { rest }))
        })
    }

    fn set(&mut self, key: &str, value: &str) {
        if let Some((index, _)) = self.find(key) {
            self.0[index] = format!("{key}: {value}\n");
        }
    }

    /// Removes the entries that are `gone` from the list `key`, and appends others.
    fn edit(
        &mut self,
        key: &'static str,
        gone: &[bool],
        others: &[Value],
    ) -> Result<(), MergeError> {
        let (header, rest) = match self.find(key) {
            Some(found) => found,
            None => {
                self.0.push(format!("{key}:\n"));
                (self.0.len() - 1, "")
            }
        };
        let is_empty = ["[]", "null", "~", "{}"].contains(&rest);
        if !rest.is_empty() && !is_empty {
            return Err(MergeError::Layout(key));
        }
        let body = self.body_below(header);
        let items = self.items(body.clone());
        if items.len() != gone.len() {
            return Err(MergeError::Layout(key));
        }
        let indent = items.first().map_or(0, |it| indent(&self.0[it.start]));
        let mut added = Vec::new();
        for entry in others {
            let yaml = yaml(&[entry])?;
            added.extend(yaml.lines().map(|line| format!("{:indent$}{line}\n", "")));
        }
        let end = items.last().map_or(header + 1, |it| it.end);
        let stays_empty = added.is_empty() && gone.iter().all(|&gone| gone);
        self.0.splice(end..end, added);
        for (item, _) in items.into_iter().zip(gone).rev().filter(|(_, gone)| **gone) {
            self.0.drain(item);
        }
        if stays_empty {
            self.set(key, "[]");
        } else if is_empty {
            self.0[header] = format!("{key}:\n");
        }
        Ok(())
    }

    /// The lines of a key's list.
    fn body_below(&self, header: usize) -> Range<usize> {
        let start = header + 1;
        let belongs = |line: &&String| {
            line.starts_with([' ', '\t', '-']) && !line.starts_with("---") || is_comment(line)
        };
        let end = start + self.0[start..].iter().take_while(belongs).count();
        start..end
    }

    /// The entries of a list, without the comments and blank lines behind them.
    fn items(&self, body: Range<usize>) -> Vec<Range<usize>> {
        let dashes = |index: &usize| self.0[*index].trim_start().starts_with("- ");
        let Some(first) = body.clone().find(dashes) else {
            return Vec::new();
        };
        let depth = indent(&self.0[first]);
        let starts: Vec<usize> = body
            .clone()
            .filter(dashes)
            .filter(|&index| indent(&self.0[index]) == depth)
            .collect();
        let ends = starts.iter().skip(1).copied().chain([body.end]);
        let trimmed = |(&start, end): (&usize, usize)| {
            let of_it = self.0[start..end]
                .iter()
                .rposition(|line| !is_comment(line));
            start..start + of_it.unwrap_or_default() + 1
        };
        starts.iter().zip(ends).map(trimmed).collect()
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

fn yaml(value: &impl Serialize) -> Result<String, MergeError> {
    serde_saphyr::to_string(value).map_err(malformed)
}

#[cfg(test)]
mod tests;
