//! A seccomp filter (seccomp(2)) that refuses setuid and setgid files to a process and its children: a guest's root
//! could otherwise create them in a mount, and the host's users could run them.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// The bits of a file's mode, each refused alone.
const REFUSED: [u64; 2] = [0o4000, 0o2000];
const EPERM: u32 = libc::EPERM.cast_unsigned();
const O_CREAT: u64 = libc::O_CREAT as u64;

/// System calls that set the mode of a file, with the index of that argument.
const MODES: [(libc::c_long, u8); 8] = [
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (libc::SYS_fchmodat2, 2),
    (libc::SYS_creat, 1),
    (libc::SYS_mknod, 1),
    (libc::SYS_mknodat, 2),
    (libc::SYS_mkdirat, 2),
];

/// System calls whose mode counts only for a new file, with the indexes of the flags and the mode.
const OPENS: [(libc::c_long, u8, u8); 2] = [(libc::SYS_open, 1, 2), (libc::SYS_openat, 2, 3)];

/// The filter; `None` on another CPU architecture.
pub(super) fn program() -> Option<BpfProgram> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).ok()?;
    let filter = SeccompFilter::new(
        rules()?,
        SeccompAction::Allow,
        SeccompAction::Errno(EPERM),
        arch,
    );
    filter.ok()?.try_into().ok()
}

fn rules() -> Option<BTreeMap<i64, Vec<SeccompRule>>> {
    let has = |argument: u8, bits: u64| {
        SeccompCondition::new(argument, Dword, SeccompCmpOp::MaskedEq(bits), bits).ok()
    };
    let mut rules = BTreeMap::new();
    for (call, mode) in MODES {
        let each = REFUSED.map(|bit| SeccompRule::new(vec![has(mode, bit)?]).ok());
        rules.insert(call, each.into_iter().collect::<Option<Vec<_>>>()?);
    }
    for (call, flags, mode) in OPENS {
        let each =
            REFUSED.map(|bit| SeccompRule::new(vec![has(flags, O_CREAT)?, has(mode, bit)?]).ok());
        rules.insert(call, each.into_iter().collect::<Option<Vec<_>>>()?);
    }
    Some(rules)
}
