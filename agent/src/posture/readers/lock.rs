//! The netfilter reader gives up every system call but those that a dump takes, before it makes
//! one. The unit's `SystemCallFilter=` is coarser, and is not there where no unit is.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::ServeError;

/// Whatever they are given: they reach nothing but what is open, memory, and the end.
const FREE: [i64; 16] = [
    libc::SYS_setsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_write,
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// From here on any other call kills the process, and no program started by it gains a privilege.
///
/// # Errors
/// When the kernel does not filter, or this processor has no filter.
pub(super) fn give_up_all_but_dumps() -> Result<(), ServeError> {
    let program = program().map_err(ServeError::Processor)?;
    seccompiler::apply_filter_all_threads(&program).map_err(ServeError::Lock)
}

fn program() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FREE.iter().map(|&call| (call, Vec::new())).collect();
    let netlink = [is(0, libc::AF_NETLINK)?, is(2, libc::NETLINK_NETFILTER)?];
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(netlink.into())?]);
    let no_code = [never(2, libc::PROT_EXEC)?];
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(no_code.into())?]);
    // A debug build asks whether what it closes is open.
    rules.insert(libc::SYS_fcntl, vec![SeccompRule::new(vec![is(1, libc::F_GETFD)?])?]);
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?
        .try_into()
}

fn is(argument: u8, value: i32) -> Result<SeccompCondition, BackendError> {
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// None of the bits is set.
fn never(argument: u8, bits: i32) -> Result<SeccompCondition, BackendError> {
    let mask = SeccompCmpOp::MaskedEq(u64::from(bits.cast_unsigned()));
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, mask, 0)
}
