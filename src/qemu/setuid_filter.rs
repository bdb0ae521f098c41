//! A seccomp filter (seccomp(2)) under which a process and its children create no setuid or setgid files: what a guest's
//! root makes setuid in a directory that the host has given it would be so on the host, for its other users to run.

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

/// System calls that give a file a mode, with the argument that is the mode.
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

/// Those whose mode counts only where a file is created, with the arguments that are the flags and the mode.
const OPENS: [(libc::c_long, u8, u8); 2] = [(libc::SYS_open, 1, 2), (libc::SYS_openat, 2, 3)];

/// The filter; `None` on a processor that it is not for.
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
