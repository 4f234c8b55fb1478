//! The registers of a system call: its number, its arguments, and where it was made.

use aya_ebpf::{cty::c_void, helpers::bpf_probe_read_user};
use fork_trace_common::{
    flags::{CLONE_VFORK, CLONE_VM, CSIGNAL, SIGCHLD},
    record::Syscall,
};

use super::{
    arch::ARCH,
    errno::ENOSYS,
    offsets::{
        REGS_ARG_0, REGS_ARG_1, REGS_COMPAT_ARG_0, REGS_COMPAT_ARG_1, REGS_IP, REGS_NUMBER,
        REGS_RETURNED, REGS_SP,
    },
    pointer::{Ptr, field},
    syscall::Exec,
};

/// The `pt_regs` of a system call. Where a method takes `compat`, it says that the call came
/// through the 32-bit entry.
#[derive(Clone, Copy)]
pub(crate) struct Regs(Ptr);

impl Regs {
    /// From a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(regs: *const c_void) -> Self {
        Self(Ptr::new(regs))
    }

    /// From a plain address, at which they are read by a helper.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(Ptr::at(address))
    }

    /// The number of the system call, and what it returns: `-ENOSYS` as long as it has not returned.
    #[inline(always)]
    pub(crate) fn number_and_return(self) -> Option<(u64, i64)> {
        let number = u64::from(field!(self.0, REGS_NUMBER: u32)?);
        let returned = field!(self.0, REGS_RETURNED: i64)?;
        if ARCH.enosys_at_entry {
            return Some((number, returned));
        }
        Some((number, unless_first(returned, field!(self.0, REGS_ARG_0: i64)?)))
    }

    /// What a call that was taken away returns: `-ENOSYS`, unless its tracer has made something up.
    #[inline(always)]
    pub(crate) fn taken_return(self, returned: i64) -> i64 {
        if ARCH.enosys_at_entry {
            return returned;
        }
        field!(self.0, REGS_ARG_0: i64).map_or(returned, |first| unless_first(returned, first))
    }

    /// What the system call returns, as in [`Regs::number_and_return`]. It is read without a helper.
    ///
    /// # Safety
    /// As for [`Regs::nr`].
    #[inline(always)]
    pub(super) unsafe fn returned(self) -> i64 {
        // SAFETY: as the caller promises.
        let returned = unsafe { self.0.load(REGS_RETURNED.load()) };
        if ARCH.enosys_at_entry {
            return returned;
        }
        // SAFETY: as the caller promises.
        unless_first(returned, unsafe { self.0.load(REGS_ARG_0.load()) })
    }

    /// The number of the system call. It is read without a helper, because `sys_exit` runs for
    /// every call of the host.
    ///
    /// # Safety
    /// The pointer must be the `pt_regs` argument of a BTF tracepoint, whose type the verifier
    /// knows.
    #[inline(always)]
    pub(crate) unsafe fn nr(self) -> u64 {
        // SAFETY: as the caller promises.
        u64::from(unsafe { self.0.load::<u32>(REGS_NUMBER.load()) })
    }

    /// The user's stack pointer and instruction pointer.
    #[inline(always)]
    pub(crate) fn place(self) -> Option<(u64, u64)> {
        Some((field!(self.0, REGS_SP: u64)?, field!(self.0, REGS_IP: u64)?))
    }

    /// The flags word and the exit signal of `syscall` as the caller passed them, as far as they
    /// can be read: the struct of `clone3` may be too short for the exit signal, or not readable at
    /// all.
    #[inline(always)]
    pub(crate) fn clone_args(self, syscall: Syscall, compat: bool) -> (Option<u64>, Option<u64>) {
        match syscall {
            Syscall::Fork => (Some(SIGCHLD), Some(SIGCHLD)),
            Syscall::Vfork => (Some(CLONE_VM | CLONE_VFORK | SIGCHLD), Some(SIGCHLD)),
            Syscall::Clone => {
                let flags = self.first(compat).map(|word| word & 0xffff_ffff);
                (flags, flags.map(|flags| flags & CSIGNAL))
            }
            Syscall::Clone3 => {
                // KERNEL: include/uapi/linux/sched.h `struct clone_args`: flags, pidfd, child_tid,
                // parent_tid, exit_signal, ..., of 64 bits each.
                (self.clone3_arg(compat, 0), self.clone3_arg(compat, 4))
            }
            Syscall::None => (None, None),
        }
    }

    /// Where the registers lie in the kernel's memory.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0.address as u64
    }

    /// How many thread ids the caller of `clone3` chose itself.
    #[inline(always)]
    pub(crate) fn set_tids(self, syscall: Syscall, compat: bool) -> Option<u64> {
        if matches!(syscall, Syscall::Clone3) { self.clone3_arg(compat, 9) } else { None }
    }

    /// A member of the struct of `clone3`, if the struct is long enough and can be read.
    #[inline(always)]
    fn clone3_arg(self, compat: bool, index: u64) -> Option<u64> {
        let (args, size) = (self.first(compat)?, self.second(compat)?);
        if size < (index + 1) * 8 {
            return None;
        }
        let address = (args + index * 8) as *const u64;
        // SAFETY: the helper checks the address and fails on a bad one.
        unsafe { bpf_probe_read_user(address) }.ok()
    }

    /// The name of the program that an exec names: the address of a string of the caller's.
    #[inline(always)]
    pub(crate) fn exec_name(self, exec: Exec, compat: bool) -> Option<u64> {
        match exec {
            Exec::Execve => self.first(compat),
            Exec::Execveat => self.second(compat),
        }
    }

    /// The first argument.
    #[inline(always)]
    fn first(self, compat: bool) -> Option<u64> {
        if compat {
            field!(self.0, REGS_COMPAT_ARG_0: u64)
        } else {
            field!(self.0, REGS_ARG_0: u64)
        }
    }

    /// The second argument.
    #[inline(always)]
    fn second(self, compat: bool) -> Option<u64> {
        if compat {
            field!(self.0, REGS_COMPAT_ARG_1: u64)
        } else {
            field!(self.0, REGS_ARG_1: u64)
        }
    }
}

/// What a call returns, by the register that holds its first argument until then. A child's is 0 from the
/// beginning; another call that returns its own first argument counts as one that has not returned.
#[inline(always)]
const fn unless_first(returned: i64, first: i64) -> i64 {
    if returned == first && returned != 0 { -ENOSYS } else { returned }
}
