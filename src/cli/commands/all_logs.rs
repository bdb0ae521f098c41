//! `logs all`: all logs merged, each line with the name of its log.

use std::{process::ExitCode, time::SystemTime};

use anstyle::{AnsiColor, Style};

use crate::{
    base::causes::with_causes,
    cli::{
        commands::log_file::{Log, Source, runs},
        error::CommandError,
        interrupt::Signals,
        terminal::{lines::Lines, output::Output, sanitize::plain},
    },
    guest::{Event, Order, Ssh, Streams},
    machine::{
        MachineError,
        access::{
            journal::{Journal, Since},
            shell,
        },
    },
    project::Project,
};

/// The length of a time in microseconds: 2026-11-23T20:19:48.849919.
const TIME: usize = 26;

/// How often the host's files are read.
const POLL: std::time::Duration = std::time::Duration::from_millis(100);

pub(crate) async fn run(
    follow: bool,
    since: Option<SystemTime>,
    project: &Project,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let guest = match shell::connect(project).await {
        Ok(ssh) => Some(ssh),
        Err(error) => {
            let reason = with_causes(&error);
            output.warning(&format!("k3s and cloud-init are not shown: {reason}"));
            None
        }
    };
    if since.is_some() {
        output.warning("the console is not shown: its lines have no time of day");
    }
    let mut entries = Vec::new();
    let files = read_files(&mut entries, since.is_none(), project, output).await?;
    let mut cursors = Vec::new();
    if let Some(ssh) = &guest {
        let from = since.map_or(Since::Boot, Since::Time);
        cursors = read_journals(&mut entries, ssh, from).await?;
    }
    if let Some(since) = since {
        let since = humantime::format_rfc3339_micros(since).to_string();
        entries.retain(|entry| entry.time.as_str() >= &since[..TIME]);
    }
    // Stable: lines of one log keep their order.
    entries.sort_by(|one, other| one.time.cmp(&other.time));
    for entry in &entries {
        show(entry.source, &entry.text, output);
    }
    match guest {
        Some(ssh) if follow => follow_all(&ssh, &cursors, files, project, output).await,
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Reads the host's logs: QEMU's into `entries`. The console's lines have no time, and are printed at once.
async fn read_files(
    entries: &mut Vec<Entry>,
    show_console: bool,
    project: &Project,
    output: &Output,
) -> Result<Vec<(Source, Log)>, CommandError> {
    let mut files = Vec::new();
    for source in [Source::Console, Source::Qemu] {
        let Some(mut log) = Log::open(source, project)? else {
            continue;
        };
        let text = log.more(project).await?;
        if source == Source::Qemu {
            add(entries, source, &text);
        } else if show_console {
            text.lines().for_each(|line| show(source, line, output));
        }
        files.push((source, log));
    }
    Ok(files)
}

/// Reads the guest's journals into `entries`. Returns the cursor at each one's end.
async fn read_journals(
    entries: &mut Vec<Entry>,
    ssh: &Ssh,
    from: Since,
) -> Result<Vec<String>, CommandError> {
    let mut cursors = Vec::new();
    for (source, journal) in JOURNALS {
        let command = journal.command(from, false) + " --show-cursor";
        let said = ssh.output(&command).await.map_err(MachineError::from)?;
        let said = String::from_utf8_lossy(&said).into_owned();
        let (said, cursor) = said.rsplit_once(CURSOR).unwrap_or((&said, ""));
        add(entries, source, said);
        cursors.push(cursor.trim().to_owned());
    }
    Ok(cursors)
}

/// The beginning of the last line of journalctl, with the cursor.
const CURSOR: &str = "-- cursor: ";

const JOURNALS: [(Source, Journal); 2] = [
    (Source::K3s, Journal::K3s),
    (Source::CloudInit, Journal::FirstBoot),
];

/// A line with its time, or the time of the last line that has one.
struct Entry {
    time: String,
    source: Source,
    text: String,
}

fn add(entries: &mut Vec<Entry>, source: Source, text: &str) {
    let mut time = String::new();
    for line in text.lines() {
        if let Some(own) = time_of(line) {
            own.clone_into(&mut time);
        }
        entries.push(Entry {
            time: time.clone(),
            source,
            text: line.to_owned(),
        });
    }
}

/// The time at the beginning of a line of journalctl and QEMU.
fn time_of(line: &str) -> Option<&str> {
    let time = line.get(..TIME)?;
    let form = "dddd-dd-ddTdd:dd:dd.dddddd";
    let fits = |(c, form): (char, char)| {
        if form == 'd' {
            c.is_ascii_digit()
        } else {
            c == form
        }
    };
    time.chars().zip(form.chars()).all(fits).then_some(time)
}

fn show(source: Source, line: &str, output: &Output) {
    let (name, colour) = match source {
        Source::Console => ("console", AnsiColor::Blue),
        Source::K3s => ("k3s", AnsiColor::Green),
        Source::CloudInit => ("cloud-init", AnsiColor::Magenta),
        Source::Qemu | Source::All => ("qemu", AnsiColor::Yellow),
    };
    let style: Style = colour.on_default();
    // The guest must not steer the terminal, nor the colors of the logs' names.
    let line = plain(line.trim_end());
    output.data(&format!("{style}{name:10}{style:#}  {line}\n"));
}

/// Follows the logs until a signal or the end of the VM.
async fn follow_all(
    ssh: &Ssh,
    cursors: &[String],
    files: Vec<(Source, Log)>,
    project: &Project,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    let mut signals = Signals::listen()?;
    let journals = JOURNALS.iter().zip(cursors);
    let journals = journals.map(|(journal, cursor)| follow(ssh, *journal, cursor, output));
    tokio::select! {
        code = signals.next() => Ok(ExitCode::from(code)),
        ended = futures_util::future::try_join_all(journals) => {
            ended?;
            Ok(ExitCode::SUCCESS)
        }
        ended = follow_files(files, project, output) => ended,
    }
}

async fn follow(
    ssh: &Ssh,
    (source, journal): (Source, Journal),
    cursor: &str,
    output: &Output,
) -> Result<(), CommandError> {
    let from = match cursor {
        "" => " --lines=0".to_owned(),
        cursor => format!(" --after-cursor='{cursor}'"),
    };
    let order = Order {
        command: Some(journal.command(Since::Ever, true) + &from),
        ..Order::default()
    };
    let streams = Streams {
        input: tokio::io::empty(),
        output: Lines::to(|line: &str| show(source, line, output)),
        errors: tokio::io::sink(),
    };
    let never = async || std::future::pending::<Event>().await;
    ssh.exec_interactive(&order, streams, never)
        .await
        .map_err(MachineError::from)?;
    Ok(())
}

async fn follow_files(
    mut files: Vec<(Source, Log)>,
    project: &Project,
    output: &Output,
) -> Result<ExitCode, CommandError> {
    while !output.is_closed() && runs(project)? {
        for (source, log) in &mut files {
            let text = log.more(project).await?;
            text.lines().for_each(|line| show(*source, line, output));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_a_time_stay_with_the_one_before() {
        let mut entries = Vec::new();
        let k3s = "2026-11-23T20:19:48.849919+00:00 vm k3s[1]: one\n    goes on\n";
        add(&mut entries, Source::K3s, k3s);
        let qemu = "without\n2026-11-23T20:19:48.000000Z qemu: warning\n";
        add(&mut entries, Source::Qemu, qemu);
        entries.sort_by(|one, other| one.time.cmp(&other.time));
        let texts: Vec<&str> = entries.iter().map(|entry| &entry.text[..7]).collect();
        assert_eq!(texts, ["without", "2026-11", "2026-11", "    goe"]);
        assert_eq!(time_of("2026-11-23"), None);
        assert_eq!(time_of("é026-11-23T20:19:48.84991"), None);
    }
}
