//! Lines of the console that decide a boot: a guest that prints one of them, and reports nothing afterwards, does not
//! become a node without help.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::{
    excerpt::{device, is_spinner, waited_for},
    stages::printable,
};

/// How long a guest at an emergency shell on its console may take to report after all.
const SHELL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long cloud-init, which runs our first boot, may take to show itself at the login prompt. It comes before the
/// prompt.
const PROMPT_TIMEOUT: Duration = Duration::from_secs(120);
/// The most of an unfinished line that is kept; a prompt is one.
const LONGEST_LINE: usize = 1024;

/// The kernel's line, every 21 s, when timer interrupts do not arrive: its thread for grace periods of RCU does not
/// wake.
const STALL: &str = " kthread starved for ";
/// So many of these lines without a report are two minutes in which the guest has done nothing.
const MOST_STALLS: usize = 6;

/// systemd's last line when it cannot continue (src/core/main.c). The guest does nothing more.
const FROZEN: &str = "systemd[1]: Freezing execution";

/// The meaning of such a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// The firmware or the boot loader finds nothing to boot.
    NotBootable,
    /// Another init than systemd runs; the distribution that is best known for it.
    NoSystemd(&'static str),
    /// The initramfs does not find the root file system, and has started a shell.
    InitramfsShell,
    /// systemd is in its emergency or rescue mode.
    EmergencyMode,
    /// A login prompt.
    LoginPrompt,
}

/// The words that a line with a sign contains, in lower case.
const WORDS: [(Sign, &[&str]); 3] = [
    (
        Sign::NotBootable,
        &[
            "no bootable device",
            "no bootable option or device was found",
            "grub rescue>",
        ],
    ),
    // initramfs-tools, mkinitfs and dracut.
    (
        Sign::InitramfsShell,
        &[
            "dropping to a shell",
            "(initramfs)",
            "emergency recovery shell launched",
            "entering emergency mode. exit the shell",
        ],
    ),
    (
        Sign::EmergencyMode,
        &[
            "you are in emergency mode",
            "you are in rescue mode",
            "cannot open access to console, the root account is locked",
        ],
    ),
];
/// The first words of OpenRC, sysvinit and runit, and the distribution that is best known for each.
const OTHER_INITS: [(&str, &str); 4] = [
    ("OpenRC ", "Alpine"),
    ("Welcome to Alpine Linux ", "Alpine"),
    ("INIT: version ", "Devuan"),
    ("- runit: enter stage: ", "Void"),
];

impl Sign {
    /// The sign that a line is.
    fn of(line: &str) -> Option<Self> {
        let line = line.trim();
        if let Some((_, name)) = OTHER_INITS
            .iter()
            .find(|(words, _)| line.starts_with(words))
        {
            return Some(Self::NoSystemd(name));
        }
        let text = line.to_ascii_lowercase();
        let known = WORDS
            .iter()
            .find(|(_, words)| words.iter().any(|it| text.contains(it)));
        match known {
            Some((sign, _)) => Some(*sign),
            None => is_prompt(line).then_some(Self::LoginPrompt),
        }
    }

    fn timeout(self) -> Duration {
        match self {
            Self::NoSystemd(_) => Duration::ZERO,
            Self::NotBootable | Self::InitramfsShell | Self::EmergencyMode => SHELL_TIMEOUT,
            Self::LoginPrompt => PROMPT_TIMEOUT,
        }
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBootable => f.write_str("this image does not boot"),
            Self::NoSystemd(name) => write!(f, "this image has no systemd ({name}?)"),
            Self::InitramfsShell => f.write_str("the guest stopped at the shell of its initramfs"),
            Self::EmergencyMode => f.write_str("the guest stopped in emergency mode"),
            Self::LoginPrompt => {
                f.write_str("the guest reached its login prompt and has not run the setup")
            }
        }
    }
}

/// Returns `true` for getty's prompt: the host's name, "login:", and nothing else.
fn is_prompt(line: &str) -> bool {
    let host = line.strip_suffix(" login:");
    host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace))
}

/// Returns `true` for a line of cloud-init, at the prompt or not.
fn is_cloud_init(line: &str) -> bool {
    ["cloud-init[", "Cloud-init v.", "ci-info:"]
        .iter()
        .any(|word| line.contains(word))
}

/// The cause of a failing boot by one line. A failed dependency is only the consequence of something else.
#[derive(Debug)]
struct Cause {
    text: String,
    is_consequence: bool,
}

impl Cause {
    fn of(line: &str) -> Option<Self> {
        let after = |words: &str| line.split_once(words).map(|(_, rest)| described(rest));
        let primary = after("Timed out waiting for device ")
            .map(|what| {
                format!(
                    "timed out waiting for {}",
                    device(what).as_deref().unwrap_or(what)
                )
            })
            .or_else(|| after("Failed to mount ").map(|what| format!("cannot mount {what}")))
            .or_else(|| missing(line))
            .or_else(|| {
                line.contains("Read-only file system")
                    .then(|| line.trim().to_owned())
            });
        let secondary =
            || after("Dependency failed for ").map(|what| format!("cannot start {what}"));
        let is_consequence = primary.is_none();
        Some(Self {
            text: printable(&primary.or_else(secondary)?),
            is_consequence,
        })
    }
}

/// The description of a unit that is named with it ("data.mount - /data.").
fn described(unit: &str) -> &str {
    let unit = unit.trim().trim_end_matches('.');
    unit.rsplit(" - ").next().unwrap_or(unit)
}

/// The device that an initramfs does not find: "ALERT!  UUID=... does not exist." or "Warning: /dev/... does not
/// exist".
fn missing(line: &str) -> Option<String> {
    let (before, _) = line.split_once(" does not exist")?;
    let disk = before.split_whitespace().next_back()?;
    let is_disk = before.contains("ALERT!") || disk.starts_with("/dev/");
    is_disk.then(|| format!("{disk} does not exist"))
}

/// The signs on a console. A guest that reports is on its way, whatever it has printed before.
#[derive(Debug, Default)]
pub struct Signs {
    unfinished: Vec<u8>,
    decisive: Option<(Sign, Instant)>,
    cause: Option<Cause>,
    reported: bool,
    waited_for: Option<String>,
    news: Vec<String>,
    stalls: usize,
    is_frozen: bool,
}

impl Signs {
    /// Reads on, with bytes that came at `now`.
    pub(super) fn read(&mut self, bytes: &[u8], now: Instant) {
        let mut seen = std::mem::take(&mut self.unfinished);
        seen.extend_from_slice(bytes);
        let text = String::from_utf8_lossy(&seen);
        let mut lines = text.split(['\n', '\r']);
        let unfinished = lines.next_back().unwrap_or_default();
        for line in lines {
            self.read_line(&printable(line), now);
        }
        // A prompt is never finished.
        if let Some(sign) = Sign::of(&printable(unfinished)) {
            self.see(sign, now);
        }
        let ends = |byte: &u8| matches!(byte, b'\n' | b'\r');
        let begin = seen.iter().rposition(ends).map_or(0, |end| end + 1);
        seen.drain(..begin.max(seen.len().saturating_sub(LONGEST_LINE)));
        self.unfinished = seen;
    }

    fn read_line(&mut self, line: &str, now: Instant) {
        if line.contains(STALL) {
            self.stalls += 1;
        }
        self.is_frozen |= line.contains(FROZEN);
        if is_spinner(line) {
            return self.wait_for(waited_for(line));
        }
        if let Some(cause) = Cause::of(line)
            && self
                .cause
                .as_ref()
                .is_none_or(|it| it.is_consequence && !cause.is_consequence)
        {
            self.cause = Some(cause);
        }
        if let Some((Sign::LoginPrompt, since)) = &mut self.decisive
            && is_cloud_init(line)
        {
            *since = now;
        }
        if let Some(sign) = Sign::of(line) {
            self.see(sign, now);
        }
    }

    /// The first sign counts, and any other one more than a prompt.
    fn see(&mut self, sign: Sign, now: Instant) {
        let is_news = match self.decisive {
            None => sign != Sign::LoginPrompt || !self.reported,
            Some((known, _)) => known == Sign::LoginPrompt && sign != known,
        };
        if !is_news {
            return;
        }
        self.decisive = Some((sign, now));
        let timeout = sign.timeout();
        if !timeout.is_zero() {
            let timeout = humantime::format_duration(timeout);
            self.news
                .push(format!("{sign}; waiting up to {timeout} for a report"));
        }
    }

    fn wait_for(&mut self, device: Option<String>) {
        if let Some(path) = &device
            && device != self.waited_for
        {
            self.news.push(format!("the guest is waiting for {path}"));
            self.waited_for = device;
        }
    }

    /// The guest has reported.
    pub fn report(&mut self) {
        self.reported = true;
        self.decisive = None;
        self.stalls = 0;
    }

    /// Returns `true` when the kernel has reported for two minutes that it does not run.
    pub fn is_stalled(&self) -> bool {
        self.stalls >= MOST_STALLS
    }

    /// Returns `true` when systemd has stopped itself.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// The sign that no report has followed in time.
    pub fn verdict(&self, now: Instant) -> Option<Sign> {
        let (sign, since) = self.decisive?;
        (now.saturating_duration_since(since) >= sign.timeout()).then_some(sign)
    }

    /// The guest's own words about the cause.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_ref().map(|it| it.text.as_str())
    }

    /// Lines of progress that have come since the last call.
    pub fn take_news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(console: &str) -> (Signs, Instant) {
        let now = Instant::now();
        let mut signs = Signs::default();
        signs.read(console.as_bytes(), now);
        (signs, now)
    }

    /// The verdict over a console after that many seconds of silence.
    fn after(seconds: u64, console: &str) -> Option<Sign> {
        let (signs, now) = signs(console);
        signs.verdict(now + Duration::from_secs(seconds))
    }

    const FSTAB: &str = "[\u{1b}[0;1;31m TIME \u{1b}[0m] Timed out waiting for device \u{1b}[0;1;39mdev-disk-by\\x2dlabel-DATA.device\u{1b}[0m - /dev/disk/by-label/DATA.\r\n\
        [\u{1b}[0;1;38:5:185mDEPEND\u{1b}[0m] Dependency failed for \u{1b}[0;1;39mdata.mount\u{1b}[0m - /data.\r\n\
        [DEPEND] Dependency failed for local-fs.target - Local File Systems.\r\n\
        You are in emergency mode. After logging in, type \"journalctl -xb\" to view\r\n\
        system logs, \"systemctl reboot\" to reboot, or \"exit\"\r\nto continue bootup.\r\n\r\n\
        Cannot open access to console, the root account is locked.\r\n\
        See sulogin(8) man page for more details.\r\n\r\nPress Enter to continue.\r\n";
    const INITRAMFS_TOOLS: &str = "Gave up waiting for root file system device.  Common problems:\r\n\
        \x20- Boot args (cat /proc/cmdline)\r\n\
        ALERT!  UUID=0d5b7f53-8b9b-4f25-a7a3-27a2c7d5c8e9 does not exist.  Dropping to a shell!\r\n\r\n\
        BusyBox v1.36.1 (Debian 1:1.36.1-9) built-in shell (ash)\r\n(initramfs) ";
    const DRACUT: &str = "[  132.1] dracut-initqueue[312]: Warning: Could not boot.\r\n\
        [  132.2] dracut-initqueue[312]: Warning: /dev/disk/by-uuid/1234-ABCD does not exist\r\n\
        Generating \"/run/initramfs/rdsosreport.txt\"\r\n\r\n\
        Entering emergency mode. Exit the shell to continue.\r\n";
    const OPENRC: &str = "\r\n   \u{1b}[32;01mOpenRC\u{1b}[0m \u{1b}[36;01m0.55.1\u{1b}[0m is starting up \u{1b}[34;01mLinux 6.12.13-0-virt (x86_64)\u{1b}[0m\r\n";

    #[test]
    fn a_kernel_that_stalls_for_two_minutes() {
        const LINE: &str = "[   22.302650] rcu: rcu_preempt kthread starved for 5252 jiffies! g-1151 f0x0 \
            RCU_GP_WAIT_FQS(5) ->state=0x402 ->cpu=1\r\n";
        let (mut stalled, now) = signs(&LINE.repeat(MOST_STALLS - 1));
        assert!(!stalled.is_stalled());
        stalled.read(LINE.as_bytes(), now);
        assert!(stalled.is_stalled());
        stalled.report();
        assert!(!stalled.is_stalled());
    }

    #[test]
    fn a_shell_has_twenty_seconds() {
        for (console, sign, cause) in [
            (
                FSTAB,
                Sign::EmergencyMode,
                Some("timed out waiting for /dev/disk/by-label/DATA"),
            ),
            (
                INITRAMFS_TOOLS,
                Sign::InitramfsShell,
                Some("UUID=0d5b7f53-8b9b-4f25-a7a3-27a2c7d5c8e9 does not exist"),
            ),
            (
                DRACUT,
                Sign::InitramfsShell,
                Some("/dev/disk/by-uuid/1234-ABCD does not exist"),
            ),
            ("No bootable device.\r\n", Sign::NotBootable, None),
            (
                "BdsDxe: No bootable option or device was found.\r\n",
                Sign::NotBootable,
                None,
            ),
        ] {
            assert_eq!(after(19, console), None, "{console}");
            assert_eq!(after(20, console), Some(sign), "{console}");
            assert_eq!(signs(console).0.cause(), cause, "{console}");
        }
    }

    #[test]
    fn another_init_is_known_at_once() {
        for (console, name) in [
            (OPENRC, "Alpine"),
            ("Welcome to Alpine Linux 3.22\r\n", "Alpine"),
            ("INIT: version 3.06 booting\r\n", "Devuan"),
            ("- runit: enter stage: /etc/runit/1\r\n", "Void"),
        ] {
            assert_eq!(after(0, console), Some(Sign::NoSystemd(name)), "{console}");
        }
    }

    #[test]
    fn a_prompt_has_two_minutes_and_more_while_cloud_init_works() {
        let prompt = "Debian GNU/Linux 12 localhost ttyS0\r\n\r\nlocalhost login: ";
        assert_eq!(after(119, prompt), None);
        assert_eq!(after(120, prompt), Some(Sign::LoginPrompt));
        let (mut signs, begin) = signs(prompt);
        let later = begin + Duration::from_secs(100);
        signs.read(
            b"[  99.1] cloud-init[512]: Cloud-init v. 22.4.2 running 'init'\r\n",
            later,
        );
        assert_eq!(signs.verdict(begin + Duration::from_secs(150)), None);
        assert_eq!(
            signs.verdict(later + Duration::from_secs(120)),
            Some(Sign::LoginPrompt)
        );
    }

    #[test]
    fn a_report_cancels_it() {
        let (mut signs, now) = signs(FSTAB);
        let late = now + Duration::from_secs(600);
        signs.report();
        assert_eq!(signs.verdict(late), None);
        signs.read(b"localhost login: ", now);
        assert_eq!(signs.verdict(late), None, "it has reported");
        signs.read(INITRAMFS_TOOLS.as_bytes(), now);
        assert_eq!(
            signs.verdict(late),
            Some(Sign::InitramfsShell),
            "it was started again"
        );
    }

    #[test]
    fn other_lines_are_not_signs() {
        for console in [
            "[    5.1] systemd[1]: Reached target Local File Systems.\r\n",
            "Failed login: root\r\n",
            "[  101.5] audit: pam_unix(login:session): session opened, login:\r\n",
            "Type root at the login: prompt\r\n",
            "[FAILED] Failed to mount tmp.mount - /tmp.\r\n",
            "[DEPEND] Dependency failed for Local File Systems.\r\n",
            "[    0.0] Kernel command line: root=UUID=1 ro console=ttyS0\r\n",
        ] {
            assert_eq!(after(9999, console), None, "{console}");
        }
    }

    #[test]
    fn bytes_come_one_by_one() {
        for console in [FSTAB, INITRAMFS_TOOLS, OPENRC, "x login: "] {
            let (whole, now) = signs(console);
            let mut pieces = Signs::default();
            for byte in console.as_bytes() {
                pieces.read(&[*byte], now);
            }
            let late = now + PROMPT_TIMEOUT;
            assert!(whole.verdict(late).is_some(), "{console}");
            assert_eq!(pieces.verdict(late), whole.verdict(late), "{console}");
            assert_eq!(pieces.cause(), whole.cause(), "{console}");
        }
    }

    #[test]
    fn a_wait_for_a_device_is_reported_once() {
        let line = |seconds| {
            format!(
                "\r[*     ] A start job is running for /dev/disk/by-label/DATA ({seconds}s / 1min 30s)"
            )
        };
        let (mut signs, now) = signs(&format!("{}{}", line(7), line(8)));
        signs.read(line(9).as_bytes(), now);
        assert_eq!(
            signs.take_news(),
            ["the guest is waiting for /dev/disk/by-label/DATA"]
        );
        assert_eq!(signs.take_news(), [""; 0]);
    }
}
