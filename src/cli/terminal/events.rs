//! `--json` of `setup` and `start`: one JSON document a line on stdout for each event.

use std::{
    io::{self, Write},
    path::Path,
    time::Instant,
};

use serde::Serialize;

use crate::{
    cli::terminal::{sanitize::readable, stdout::stdout},
    machine::{lifecycle::setup::Summary, model::timings::TimeSpentIn},
};

/// The layout of the documents.
const SCHEMA: u32 = 1;

/// An event of a command.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event<'a> {
    /// A step has ended or begun, as a text.
    Stage { message: &'a str },
    /// The command continues, with a problem that the user should know.
    Warning { message: &'a str },
    /// A transfer: at its begin and end, and about once a second.
    Progress {
        what: &'a str,
        /// The bytes that are present.
        done: u64,
        /// The bytes in total, if the server sends them.
        total: Option<u64>,
    },
    /// The last one of a command that succeeds.
    Done {
        name: &'a str,
        kubeconfig: &'a Path,
        server: String,
        api_port: u16,
        /// The VM was running and healthy before.
        nothing_to_do: bool,
        phases: Vec<Phase>,
    },
    /// The last one of a command that fails.
    Error {
        message: &'a str,
        /// The end of the log that explains it.
        excerpt: Option<&'a str>,
        /// The next steps.
        hints: &'a [String],
        /// The exit code.
        code: u8,
    },
}

/// The time of a phase.
#[derive(Debug, Serialize)]
pub(crate) struct Phase {
    name: &'static str,
    seconds: f64,
    category: &'static str,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: u32,
    /// The time since the command began.
    seconds: f64,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl<'a> Event<'a> {
    /// The event at the end of a successful setup or start.
    pub(crate) fn done(summary: &'a Summary) -> Self {
        let record = &summary.record;
        let phases = summary.timings.phases().iter().map(|phase| Phase {
            name: phase.name,
            seconds: rounded(phase.took.as_secs_f64()),
            category: match phase.category {
                TimeSpentIn::Own => "own",
                TimeSpentIn::Network => "network",
                TimeSpentIn::Guest => "guest",
            },
        });
        Self::Done {
            name: record.name.as_str(),
            kubeconfig: &record.kubeconfig,
            server: format!("https://127.0.0.1:{}", record.api_port),
            api_port: record.api_port,
            nothing_to_do: summary.nothing_to_do,
            phases: phases.collect(),
        }
    }
}

/// Writes an event to stdout.
pub(crate) fn write(event: &Event<'_>, began: Instant) -> io::Result<()> {
    line(event, began.elapsed().as_secs_f64()).and_then(|line| put(&line))
}

/// Writes a line to stdout and flushes.
pub(crate) fn put(line: &str) -> io::Result<()> {
    stdout()?.write_all(line.as_bytes())
}

fn line(event: &Event<'_>, seconds: f64) -> io::Result<String> {
    let line = serde_json::to_string(&Line {
        schema: SCHEMA,
        seconds: rounded(seconds),
        event,
    })?;
    Ok(format!("{}\n", readable(&line)))
}

/// Rounded to milliseconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_matches_its_snapshot() {
        let hints = ["start it: k3s-vm start".to_owned()];
        let phases = vec![Phase {
            name: "guest boots",
            seconds: 16.889,
            category: "guest",
        }];
        let events = [
            Event::Stage {
                message: "guest \"booted\"\n",
            },
            Event::Warning {
                message: "no https://ada:sesame@mirror/",
            },
            Event::Progress {
                what: "debian-13.qcow2",
                done: 7,
                total: Some(9),
            },
            Event::Progress {
                what: "k3s",
                done: 7,
                total: None,
            },
            Event::Done {
                name: "k3s-shop-1a2b3c",
                kubeconfig: Path::new("/home/ada/shop/.kube/config"),
                server: "https://127.0.0.1:6443".to_owned(),
                api_port: 6443,
                nothing_to_do: false,
                phases,
            },
            Event::Error {
                message: "the VM k3s-shop-1a2b3c is stopped",
                excerpt: None,
                hints: &hints,
                code: 3,
            },
        ];
        let lines = events
            .iter()
            .map(|event| line(event, 1.234_56).expect("JSON"));
        insta::assert_snapshot!(lines.collect::<String>());
    }
}
