//! KVM that is not what it seems: no device behind `/dev/kvm`, a trial guest that does not end, a guest that never shows
//! a sign of life. `kvm` ends in a clear error; `auto` warns once and continues by emulation.

use std::process::Command;

use rustix::process::Signal;

use super::{
    sandbox::{Background, Sandbox, eventually, in_other_mounts, program},
    table::record_stopped_fault,
};

const EMULATED: &str = "running without KVM, many times slower (see ";

/// `setup` on a host with such a `/dev/kvm`, and perhaps such a QEMU.
fn on_that_host(sandbox: &Sandbox, flags: &[&str], case: &Case) -> Command {
    let setup = sandbox.setup(flags);
    let script = format!(
        "mkdir -p ../dev; touch ../dev/null; mount --bind /dev/null ../dev/null; {}; \
         mount --rbind ../dev /dev; exec setpriv --bounding-set -dac_override,-dac_read_search \"$@\"",
        case.device
    );
    let mut command = in_other_mounts(sandbox, &setup, &script);
    if let Some(script) = &case.qemu {
        let path = std::env::var("PATH").unwrap_or_default();
        let script = format!("PATH='{path}'\n{script}");
        let mut all = program(sandbox, "qemu-system-x86_64", &script);
        all.push(format!(":{path}"));
        command.env("PATH", all);
    }
    command
}

/// A QEMU whose trial guest does that, and whose other guests run by emulation whatever is asked for.
fn qemu(trial: &str) -> String {
    format!(
        "case \"$*\" in *isa-debug-exit*) {trial};; esac\n\
         n=$#\nwhile [ $n -gt 0 ]; do a=$1; shift; n=$((n - 1))\n\
         case \"$a\" in -enable-kvm) ;; host) set -- \"$@\" max;; *) set -- \"$@\" \"$a\";; esac\ndone\n\
         exec qemu-system-x86_64 \"$@\""
    )
}

/// What is wrong with KVM.
struct Case {
    fault: &'static str,
    device: &'static str,
    qemu: Option<String>,
    word: &'static str,
}

/// A plain file opens as well as the device.
const OPENS: &str = "touch ../dev/kvm";

fn cases() -> [Case; 5] {
    let case = |fault, device, qemu, word| Case {
        fault,
        device,
        qemu,
        word,
    };
    [
        case("no /dev/kvm", "true", None, "/dev/kvm is missing"),
        case(
            "a /dev/kvm of others",
            "touch ../dev/kvm; chmod 0 ../dev/kvm",
            None,
            "/dev/kvm cannot be opened: permission denied",
        ),
        case(
            "a /dev/kvm that is no KVM",
            OPENS,
            None,
            "/dev/kvm is there and does not run guests",
        ),
        case(
            "a KVM whose trial guest does not end",
            OPENS,
            Some(qemu("exec sleep 600")),
            "did not end within 5 s",
        ),
        case(
            "a KVM whose guest shows no sign of life",
            OPENS,
            Some(qemu("exit 33")),
            "the guest gave no sign of life for 25 s",
        ),
    ]
}

#[test]
fn required() {
    for case in cases() {
        let sandbox = Sandbox::new();
        let setup = on_that_host(&sandbox, &["--accel", "kvm"], &case);
        let words = [
            "cannot use KVM: /dev/kvm",
            case.word,
            "or run without KVM: --accel tcg",
        ];
        sandbox.fails(&format!("{}, --accel kvm", case.fault), setup, 1, &words);
        sandbox.continues(sandbox.setup(&[]));
    }
}

#[test]
fn preferred() {
    for case in cases() {
        let sandbox = Sandbox::new();
        let setup = on_that_host(&sandbox, &["--accel", "auto"], &case);
        let setup = Background::start(&sandbox, setup);
        eventually("it continues by emulation", || {
            assert!(setup.is_running(), "{}", setup.said());
            setup.said().contains(", tcg)")
        });
        eventually("the VM runs", || {
            sandbox.status()["process"]["run_state"] == "running"
        });
        setup.signal(Signal::INT);
        let ended = setup.end();
        record_stopped_fault(
            &sandbox,
            &format!("{}, --accel auto, interrupted", case.fault),
            &ended,
        );
        assert_eq!(ended.code, 130);
        assert!(
            ended.stderr.contains(case.word),
            "{}: {}",
            case.fault,
            ended.stderr
        );
        let warnings = ended.stderr.matches(EMULATED).count();
        assert_eq!(warnings, 1, "{}: {}", case.fault, ended.stderr);
    }
}
