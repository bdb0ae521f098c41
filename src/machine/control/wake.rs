//! A resumed guest receives the time and random numbers, and starts k3s.

use std::time::{Duration, SystemTime};

use crate::{
    machine::{Limits, control::guest},
    project::Project,
};

/// How long a guest may take to answer. A running guest answers within seconds, and a booting one needs no message.
const GUEST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Starts k3s in the guest, unless it runs or is about to. Returns `true` if it has started before: its report may be
/// lost in a flood of lines.
pub async fn start_k3s(project: &Project, limits: Limits) -> bool {
    let timeout = limits.left().min(GUEST_ANSWER_TIMEOUT);
    let both = "systemctl start --no-block k3s.service; systemctl is-active k3s.service || true";
    match tokio::time::timeout(timeout, guest::exec(project, both)).await {
        Ok(Ok(said)) => return said.trim_ascii() == b"active",
        Ok(Err(error)) => tracing::debug!(%error, "the guest was not told to start k3s"),
        Err(_) => tracing::debug!("the guest does not answer yet"),
    }
    false
}

/// Sends a resumed guest the time and random numbers (see [`waking`]), within the time that is `left` to the command. A
/// guest that does not answer corrects its clock later.
pub(crate) async fn wake(project: &Project, left: Duration) {
    let timeout = left.min(GUEST_ANSWER_TIMEOUT);
    match tokio::time::timeout(timeout, guest::exec(project, &waking())).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the guest was not told what has changed"),
        Err(_) => tracing::debug!("the guest does not answer yet"),
    }
}

/// The command for a resumed guest: sets its clock and reseeds its random numbers, whose state was in a file. Linux
/// since 5.18 reseeds by QEMU's vmgenid; an older one is made to use new numbers at once. At most 64 bytes that its
/// driver has read ahead are from the file as well.
pub fn waking() -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!(
        "date -s @{seconds}.{:03} >/dev/null 2>&1 || date -s @{seconds} >/dev/null; \
         head -c 256 /dev/hwrng >/dev/urandom; ls -d /sys/bus/*/drivers/vmgenid >/dev/null 2>&1 || {RESEED}",
        now.subsec_millis(),
        seconds = now.as_secs(),
    )
}

/// The command that restarts k3s in a resumed guest if its last start is long ago, and fails until that is done: k3s
/// renews certificates only at a start, and only those that expire soon. `written` is the file that k3s writes at each
/// start.
pub fn renewing(written: &str) -> String {
    let begun = "/run/k3s-vm.renewing";
    format!(
        "test -z \"$(find {written} -mtime +{OLDEST_START} 2>/dev/null)\" || \
         if test -n \"$(find {begun} -mtime -1 2>/dev/null)\"; then systemctl is-active --quiet k3s.service; \
         else : >{begun}; systemctl restart --no-block k3s.service; false; fi"
    )
}

/// In days. A certificate that k3s keeps at a start is valid for 90 days more (in newer versions 120; its documentation,
/// "k3s certificate").
const OLDEST_START: u32 = 80;

/// RNDRESEEDCRNG, in linux/random.h: reseeds at once instead of within minutes.
const RESEED: &str = "perl -e 'open my $f, \">\", \"/dev/urandom\"; ioctl $f, 0x5207, 0' 2>/dev/null || \
     python3 -c 'import fcntl; fcntl.ioctl(open(\"/dev/urandom\", \"wb\"), 0x5207)'";

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, process::Command};

    use super::*;

    #[test]
    fn k3s_starts_again_once_when_its_last_start_is_long_ago() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| directory.path().join(name);
        // Active from the second query on.
        let systemctl = "#!/bin/sh\ncd \"${0%/*}\"; echo \"$*\" >>asked; \
            case $1 in is-active) grep -c is-active asked | grep -qv 1;; esac\n";
        fs::write(path("systemctl"), systemctl).expect("written");
        fs::set_permissions(path("systemctl"), fs::Permissions::from_mode(0o755)).expect("set");
        fs::write(path("asked"), "").expect("written");
        let command = renewing("k3s.yaml").replace("/run/", "");
        let run = || {
            let here = directory.path().display();
            let status = Command::new("sh")
                .args([
                    "-c",
                    &format!("PATH={here}:$PATH; ({command}) && cat k3s.yaml >/dev/null"),
                ])
                .current_dir(directory.path())
                .status();
            status.expect("sh runs").success()
        };
        let written_before = |days: u64| {
            let file = fs::File::create(path("k3s.yaml")).expect("created");
            let time = SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
            file.set_modified(time).expect("set");
        };
        assert!(!run(), "there is none yet");
        written_before(70);
        assert!(run());
        assert_eq!(fs::read_to_string(path("asked")).expect("read"), "");
        written_before(100);
        assert!(!run(), "it is starting");
        assert!(!run(), "it is still starting");
        assert!(run(), "it has started, and has not written it");
        written_before(0);
        assert!(run());
        let asked = fs::read_to_string(path("asked")).expect("read");
        let restart = "restart --no-block k3s.service\n";
        assert!(
            asked.starts_with(restart) && asked.matches(restart).count() == 1,
            "{asked}"
        );
    }
}
