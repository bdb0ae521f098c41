//! A resumed guest receives the time and random numbers, and starts k3s.

use std::time::{Duration, SystemTime};

use crate::{
    machine::{Limits, control::guest},
    project::Project,
};

/// How long a guest may take to answer. One that is up does within seconds, and one that is not yet needs no word.
const GUEST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Has the guest's systemd start k3s, where it does not run and is not about to. Whether it has started before, which no
/// report need tell any more: a flood may have washed it away.
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

/// Tells a resumed guest what has changed (see [`waking`]), within the time that is `left` to the command. One that
/// does not answer corrects its clock later.
pub(crate) async fn wake(project: &Project, left: Duration) {
    let timeout = left.min(GUEST_ANSWER_TIMEOUT);
    match tokio::time::timeout(timeout, guest::exec(project, &waking())).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the guest was not told what has changed"),
        Err(_) => tracing::debug!("the guest does not answer yet"),
    }
}

/// The command that tells a resumed guest what has changed: the time, which it would see only at its next look at the
/// clock, and that what it takes for random was once in a file. (Linux since 5.18 sees that for itself, by QEMU's
/// vmgenid; an older one is made to use new numbers at once. What its driver has of them beforehand, at most 64 bytes,
/// was in the file as well.)
pub fn waking() -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!(
        "date -s @{seconds}.{:03} >/dev/null 2>&1 || date -s @{seconds} >/dev/null; \
         head -c 256 /dev/hwrng >/dev/urandom; ls -d /sys/bus/*/drivers/vmgenid >/dev/null 2>&1 || {RESEED}",
        now.subsec_millis(),
        seconds = now.as_secs(),
    )
}

/// RNDRESEEDCRNG, in linux/random.h: at once, and not within minutes.
const RESEED: &str = "perl -e 'open my $f, \">\", \"/dev/urandom\"; ioctl $f, 0x5207, 0' 2>/dev/null || \
     python3 -c 'import fcntl; fcntl.ioctl(open(\"/dev/urandom\", \"wb\"), 0x5207)'";
