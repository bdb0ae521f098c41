//! The contents of a bug report: named texts without secrets. An unreadable part contains the reason.

use std::{fmt::Display, fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use crate::{
    base::{
        causes::with_causes,
        files::{self, allocated},
        secrets::Secrets,
    },
    guest::Answer,
    k3s::Kubeconfig,
    machine::{MachineError, State, access::shell, control::guest_logs, report::status},
    project::Project,
};

/// How long the guest may take for each of its logs: an emulated one on a busy host needs more than 5 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The end of each log, in lines.
const LINES: usize = 5000;

/// The longest line that is shown, in bytes.
const LONGEST: usize = 8192;

/// A file of the bundle.
#[derive(Debug)]
pub struct Part {
    /// Its path in the archive.
    pub name: String,
    /// The content.
    pub text: String,
}

impl Part {
    /// A part from elsewhere.
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            text: text.into(),
        }
    }
}

/// The parts of the project's VM and `others`, all without secrets.
pub async fn bundle(project: &Project, others: Vec<Part>) -> Vec<Part> {
    guest_logs::collect(project).await;
    let mut parts = others;
    parts.push(Part::new("status.json", status_of(project).await));
    for path in [
        project.config(),
        project.record(),
        project.suspended(),
        project.console_log(),
        project.qemu_log(),
        project.stages_log(),
        project.idle_log(),
    ] {
        if path.exists() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            parts.push(Part::new(
                &format!("machine/{name}"),
                files::tail(&path, LINES),
            ));
        }
    }
    parts.push(Part::new("machine/files", listing(&project.directory())));
    if matches!(State::observe(project), Ok(State::Running(..))) {
        for (name, units) in [("k3s", "k3s"), ("k3s-vm", "'k3s-vm-*'")] {
            let journal = journal(project, units).await;
            parts.push(Part::new(&format!("guest/{name}.journal"), journal));
        }
    }
    let secrets = secrets_of(project);
    for part in &mut parts {
        part.text = presentable(&part.text, &secrets);
    }
    parts
}

fn why(error: &dyn Display) -> String {
    format!("not available: {error}\n")
}

async fn status_of(project: &Project) -> String {
    match status::status(project).await {
        Ok(status) => serde_json::to_string_pretty(&status).unwrap_or_else(|error| why(&error)),
        Err(error) => why(&with_causes(&error)),
    }
}

async fn journal(project: &Project, units: &str) -> String {
    let command =
        format!("journalctl --no-pager --output=short-iso --lines={LINES} --unit={units}");
    let (mut output, mut errors) = (Answer::default(), Answer::default());
    let run = async {
        let ssh = shell::connect(project).await?;
        ssh.run(&command, tokio::io::empty(), &mut output, &mut errors)
            .await?;
        ssh.close().await;
        Ok::<_, MachineError>(())
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, run).await {
        Ok(Ok(())) => {
            let text = [output.0, errors.0].concat();
            String::from_utf8_lossy(&text).into_owned()
        }
        Ok(Err(error)) => why(&with_causes(&error)),
        Err(_) => why(&format_args!(
            "no answer within {} s",
            ANSWER_TIMEOUT.as_secs()
        )),
    }
}

/// Mode, length, space on the disk and name of each file.
fn listing(directory: &Path) -> String {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries.flatten(),
        Err(error) => return why(&error),
    };
    let mut lines: Vec<String> = entries
        .filter_map(|entry| {
            let it = entry.metadata().ok()?;
            let (mode, length) = (it.permissions().mode(), it.len());
            let room = allocated(&entry.path()).as_bytes();
            let name = entry.file_name();
            Some(format!(
                "{mode:o} {length:>12} {room:>12} {}\n",
                name.to_string_lossy()
            ))
        })
        .collect();
    lines.sort_by(|one, other| {
        one.split(' ')
            .next_back()
            .cmp(&other.split(' ').next_back())
    });
    lines.concat()
}

/// The VM's own keys and certificates, in every encoding.
fn secrets_of(project: &Project) -> Secrets {
    let mut known: Vec<String> = [project.client_key(), project.host_key(), project.identity()]
        .iter()
        .filter_map(|path| files::read_if_exists(path).ok()?)
        .collect();
    let state = State::observe(project).ok();
    if let Some(record) = state.as_ref().and_then(State::record)
        && let Ok(Some(yaml)) = files::read_if_exists(&record.kubeconfig)
        && let Ok(kubeconfig) = Kubeconfig::parse(&yaml)
    {
        known.extend(kubeconfig.secrets().map(str::to_owned));
        if let Ok(decoded) = kubeconfig.credentials() {
            for pem in [decoded.authority, decoded.identity] {
                known.push(String::from_utf8_lossy(&pem).into_owned());
            }
        }
    }
    Secrets::knowing(known.iter().map(String::as_str))
}

/// The text without secrets and control characters, with lines of limited length.
fn presentable(text: &str, secrets: &Secrets) -> String {
    let shown = |c: char| {
        if c.is_control() && !"\n\t".contains(c) {
            '?'
        } else {
            c
        }
    };
    let text: String = text.lines().map(|line| cut(line) + "\n").collect();
    secrets.removed_from(&text).chars().map(shown).collect()
}

/// The beginning of a line, up to the end of a word: half of a secret would not be recognised.
fn cut(line: &str) -> String {
    if line.len() <= LONGEST {
        return line.to_owned();
    }
    let end = (0..=LONGEST).rev().find(|&at| line.is_char_boundary(at));
    let begin = &line[..end.unwrap_or_default()];
    let whole = begin
        .rsplit_once(char::is_whitespace)
        .map_or("", |(whole, _)| whole);
    format!("{whole} [cut: {} bytes in all]", line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_without_half_secrets() {
        let secrets = Secrets::knowing(["plainlowercasekey"]);
        let long = "a ".repeat(LONGEST / 2 - 4) + "plainlowercasekey and more";
        let text = presentable(&long, &secrets);
        assert!(
            !text.contains("plain") && text.ends_with("bytes in all]\n"),
            "{text}"
        );
        for word in [
            "token=",
            "password",
            "-----BEGIN ",
            "--token ",
            "x-token:\"",
            "\u{1b}é",
        ] {
            let flood = word.repeat((4 << 20) / word.len());
            let of_lines = flood.replace(' ', "\n");
            assert!(presentable(&flood, &secrets).len() < 2 * LONGEST, "{word}");
            assert!(
                !presentable(&of_lines, &secrets).contains('\u{1b}'),
                "{word}"
            );
        }
    }
}
