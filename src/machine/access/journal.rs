//! The guest's journal of k3s and of the first boot, which can be read while the guest runs.

use std::time::SystemTime;

/// The source of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// k3s's.
    K3s,
    /// cloud-init's, and those of the units that make the guest a node.
    FirstBoot,
}

/// The first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// All entries.
    Ever,
    /// The guest's last boot.
    Boot,
    /// A time.
    Time(SystemTime),
}

/// cloud-init's own files, whose times journalctl does not parse.
const FILES: &str = "for file in /var/log/cloud-init.log /var/log/cloud-init-output.log; do \
    [ ! -s $file ] || { echo \"==> $file <==\"; cat $file; echo; }; done; ";

impl Journal {
    /// The guest's command that prints it, one line an entry, with the time in UTC first. Without a start time,
    /// cloud-init's own files come first.
    pub fn command(self, since: Since, follow: bool) -> String {
        let (files, units) = match (self, since) {
            (Self::K3s, _) => ("", "--unit=k3s"),
            (Self::FirstBoot, Since::Ever) if !follow => {
                (FILES, "--unit='cloud-*' --unit='k3s-vm-*'")
            }
            (Self::FirstBoot, _) => ("", "--unit='cloud-*' --unit='k3s-vm-*'"),
        };
        let since = match since {
            Since::Ever => String::new(),
            Since::Boot => " --boot".to_owned(),
            Since::Time(time) => {
                let seconds = time.duration_since(SystemTime::UNIX_EPOCH);
                format!(" --since=@{}", seconds.unwrap_or_default().as_secs())
            }
        };
        let follow = if follow { " --follow" } else { "" };
        format!(
            "{files}exec journalctl --quiet --no-pager --utc --output=short-iso-precise {units}{since}{follow}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn files_come_only_where_times_do_not_matter() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let commands = [
            Journal::FirstBoot.command(Since::Ever, false),
            Journal::FirstBoot.command(Since::Ever, true),
            Journal::FirstBoot.command(Since::Time(time), false),
            Journal::K3s.command(Since::Boot, true),
        ];
        assert_eq!(
            commands.each_ref().map(|it| it.contains("/var/log")),
            [true, false, false, false]
        );
        assert!(commands[2].ends_with("--since=@1700000000"), "{commands:?}");
        assert!(
            commands[3].ends_with("--unit=k3s --boot --follow"),
            "{commands:?}"
        );
    }
}
