//! The end of a log, as an error shows it: without progress animations and repeated lines.

use std::collections::HashSet;

use super::stages::printable;

/// The last `most` lines of a log that say something, each where it stands last.
pub fn excerpt(log: &str, most: usize) -> String {
    let mut seen = HashSet::new();
    let mut lines: Vec<String> = log
        .rsplit(['\n', '\r'])
        .map(printable)
        .filter(|line| !line.trim().is_empty() && !is_spinner(line))
        .filter(|line| seen.insert(undated(line).to_owned()))
        .take(most)
        .collect();
    lines.reverse();
    lines.join("\n")
}

/// Returns `true` for a line that systemd draws again and again while it waits for a job (src/core/manager.c).
pub(super) fn is_spinner(line: &str) -> bool {
    let eye = line.trim_start().strip_prefix('[');
    let eye = eye.and_then(|rest| rest.split_once(']'));
    let moves =
        eye.is_some_and(|(eye, _)| eye.contains('*') && eye.chars().all(|c| c == '*' || c == ' '));
    moves || job(line).is_some()
}

/// The device that systemd waits for, if the line draws that.
pub(super) fn waited_for(line: &str) -> Option<String> {
    let (job, _) = job(line)?.rsplit_once(" (")?;
    let unit = job.trim_end_matches(" running");
    device(unit.trim_end_matches("/start"))
}

/// The job of a spinner: "A start job is running for DESCRIPTION (TIME)" or "Job UNIT/start running (TIME)".
fn job(line: &str) -> Option<&str> {
    let (_, described) = line.split_once(" job is running for ").unzip();
    let (_, named) = line.split_once(" Job ").unzip();
    described.or_else(|| named.filter(|rest| rest.contains(" running (")))
}

/// The path of a device unit, by its description or its name (systemd.unit(5), "String escaping").
pub(super) fn device(unit: &str) -> Option<String> {
    let unit = unit.rsplit(" - ").next().unwrap_or(unit);
    if unit.starts_with("/dev/") {
        return Some(unit.to_owned());
    }
    let name = unit.strip_suffix(".device")?;
    Some(format!("/{}", name.replace('-', "/").replace(r"\x2d", "-")))
}

/// A line without the time that the kernel or k3s put before it.
fn undated(line: &str) -> &str {
    if let Some((time, rest)) = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        && time.trim().parse::<f64>().is_ok()
    {
        return rest;
    }
    match line
        .split_once("time=\"")
        .and_then(|(_, rest)| rest.split_once("\" "))
    {
        Some((_, rest)) => rest,
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spinner_is_left_out() {
        let log = "[  OK  ] Reached target Local Encrypted Volumes.\r\n\
            \u{1b}M\r\u{1b}[K[\u{1b}[0;31m*\u{1b}[0m     ] A start job is running for /dev/disk/by-label/DATA (7s / 1min 30s)\r\n\
            \u{1b}M\r\u{1b}[K[ \u{1b}[0;31m*\u{1b}[0;1;31m*\u{1b}[0m   ] Job dev-disk-by\\x2dlabel-DATA.device/start running (8s / 1min 30s)\r\n\
            \r[**    ] (1 of 2) Job x.service/start running (9s / no limit)\r\
            \u{1b}[K[\u{1b}[0;1;31m TIME \u{1b}[0m] Timed out waiting for device /dev/disk/by-label/DATA.\r\n";
        let kept = "[  OK  ] Reached target Local Encrypted Volumes.\n\
            [ TIME ] Timed out waiting for device /dev/disk/by-label/DATA.";
        assert_eq!(excerpt(log, 15), kept);
    }

    #[test]
    fn repeated_lines_keep_the_last_position() {
        let log = "[    1.0] again\none\n[    2.0] again\n\n   \ntwo\n[    3.5] again\n";
        assert_eq!(excerpt(log, 15), "one\ntwo\n[    3.5] again");
        assert_eq!(excerpt(log, 2), "two\n[    3.5] again");
        let k3s = |time: &str| format!("k3s: time=\"{time}\" level=fatal msg=\"no\"\n");
        let log = format!(
            "{}{}",
            k3s("2026-11-27T10:00:00Z"),
            k3s("2026-11-27T10:00:08Z")
        );
        assert_eq!(excerpt(&log, 15), k3s("2026-11-27T10:00:08Z").trim_end());
        assert_eq!(excerpt("", 15), "");
    }

    #[test]
    fn a_device_is_named_by_its_path() {
        let path = Some("/dev/disk/by-label/my-data".to_owned());
        for line in [
            "[*     ] A start job is running for /dev/disk/by-label/my-data (7s / 1min 30s)",
            r"[ *    ] Job dev-disk-by\x2dlabel-my\x2ddata.device/start running (7s / 1min 30s)",
            r"[***   ] (1 of 3) Job dev-disk-by\x2dlabel-my\x2ddata.device/start running (7s / 1min 30s)",
            r"[***   ] A start job is running for dev-disk-by\x2dlabel-my\x2ddata.device - /dev/disk/by-label/my-data (7s / 1min 30s)",
        ] {
            assert_eq!(waited_for(line), path, "{line}");
        }
        for line in [
            "[*     ] A start job is running for Wait for Network (7s / 2min)",
            "[*     ] Job cloud-init.service/start running (7s / no limit)",
            "Job control turned off",
        ] {
            assert_eq!(waited_for(line), None, "{line}");
        }
    }
}
