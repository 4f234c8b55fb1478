//! The registers of a system call: its number, its arguments, and where it was made.

use aya_ebpf::{cty::c_void, helpers::bpf_probe_read_user};
use fork_trace_common::{
    flags::{CLONE_VFORK, CLONE_VM, CSIGNAL, SIGCHLD},
    record::Syscall,
};

use super::{
    offsets::{REGS_AX, REGS_BX, REGS_CX, REGS_DI, REGS_IP, REGS_ORIG_AX, REGS_SI, REGS_SP},
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

    /// The number of the system call, and what it is to return.
    #[inline(always)]
    pub(crate) fn number_and_return(self) -> Option<(u64, u64)> {
        Some((field!(self.0, REGS_ORIG_AX: u64)?, field!(self.0, REGS_AX: u64)?))
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
        unsafe { self.0.load(REGS_ORIG_AX.load()) }
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
        if compat { field!(self.0, REGS_BX: u64) } else { field!(self.0, REGS_DI: u64) }
    }

    /// The second argument.
    #[inline(always)]
    fn second(self, compat: bool) -> Option<u64> {
        if compat { field!(self.0, REGS_CX: u64) } else { field!(self.0, REGS_SI: u64) }
    }
}
