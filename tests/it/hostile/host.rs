//! What QEMU, the guest and the host's packages say.

use k3s_vm::{
    guest::{Report, stages::printable},
    k3s::api::parse_nodes,
    qemu::{
        Monitor, Version, firmware,
        guest_abi::{difference, guest_abi},
        usernet::forwarded_port,
    },
};
use qapi::qmp;
use tokio::{io::sink, runtime::Builder};

use super::{storm::Storm, text};

/// A greeting, the end of the negotiation, and two answers; among them events and other clients' replies.
#[test]
fn monitor() {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            Builder::new_current_thread().enable_time().build().expect("a runtime");
    }
    let talk = async |input: &[u8]| {
        let mut monitor = Monitor::greet(tokio::io::join(input, sink())).await.ok()?;
        let usernet = monitor.human("info usernet").await.ok()?;
        let _ = forwarded_port(&usernet, 22);
        let _ = monitor.execute(qmp::query_status {}).await;
        Some(())
    };
    Storm::of("monitor")
        .on(|input| RUNTIME.with(|runtime| runtime.block_on(talk(input)).is_some()));
}

#[test]
fn usernet() {
    Storm::of("usernet").on(|input| {
        let text = String::from_utf8_lossy(input);
        [22, 6443]
            .into_iter()
            .any(|port| forwarded_port(&text, port).is_some())
    });
}

/// The command line of a process, as the kernel has it.
#[test]
fn arguments() {
    Storm::of("arguments").on(|input| {
        let line = String::from_utf8_lossy(input);
        let seen = guest_abi(line.split_terminator('\0'));
        assert_eq!(difference(&seen, &seen), None);
        !seen.is_empty()
    });
}

#[test]
fn stage_lines() {
    Storm::of("stages").on(|input| {
        let Some(report) = Report::parse(&String::from_utf8_lossy(input)) else {
            return false;
        };
        let line = report.describe();
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(line.chars().count() < 640, "{line:?}");
        true
    });
}

#[test]
fn console_text() {
    Storm::of("console").on(|input| {
        let shown = printable(&String::from_utf8_lossy(input));
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        assert!(shown.chars().count() <= 300, "{shown:?}");
        assert_eq!(printable(&shown), shown);
        !shown.is_empty()
    });
}

#[test]
fn qemu_version() {
    Storm::of("qemu-version").on(|input| {
        let line = String::from_utf8_lossy(input);
        Version::parse(&line).is_some_and(|version| {
            let again = Version::parse(&format!("QEMU emulator version {version}"));
            assert_eq!(again, Some(version));
            true
        })
    });
}

#[test]
fn firmware_descriptor() {
    Storm::of("firmware").on(text(|json| firmware::usable(json).is_some()));
}

#[test]
fn node_list() {
    Storm::of("nodes").on(|input| parse_nodes(input).is_ok());
}
