//! What differs between the machines that fork-trace runs on: a table with one row for each.
//!
//! User space takes the row of the machine that it is built for ([`ARCH`]), and so does each object of the
//! kernel side. Both rows are there everywhere, so that tests see both.

use crate::record::Syscall;

/// The numbers of fork's and exec's system calls at one entry of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Calls {
    /// `clone(2)`.
    pub clone: u64,
    /// `fork(2)`, where there is one.
    pub fork: Option<u64>,
    /// `vfork(2)`, where there is one.
    pub vfork: Option<u64>,
    /// `clone3(2)`.
    pub clone3: u64,
    /// `execve(2)`.
    pub execve: u64,
    /// `execveat(2)`.
    pub execveat: u64,
}

impl Calls {
    /// Which of fork's calls a number is.
    #[must_use]
    #[inline(always)]
    pub const fn fork_call(&self, nr: u64) -> Syscall {
        if nr == self.clone {
            return Syscall::Clone;
        }
        if nr == self.clone3 {
            return Syscall::Clone3;
        }
        match (self.fork, self.vfork) {
            (Some(fork), _) if nr == fork => Syscall::Fork,
            (_, Some(vfork)) if nr == vfork => Syscall::Vfork,
            _ => Syscall::None,
        }
    }

    /// Whether a number is one of exec's calls.
    #[must_use]
    #[inline(always)]
    pub const fn is_exec(&self, nr: u64) -> bool {
        nr == self.execve || nr == self.execveat
    }
}

/// The fields of the kernel's `pt_regs` of a system call, as BTF has them.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    /// The number of the call.
    pub number: &'static str,
    /// What it returns.
    pub returned: &'static str,
    /// The user's stack pointer.
    pub sp: &'static str,
    /// The user's instruction pointer.
    pub ip: &'static str,
    /// The first five arguments of a call through the 64-bit entry.
    pub args: [&'static str; 5],
    /// Those of a call through the 32-bit entry.
    pub compat_args: [&'static str; 5],
}

/// One machine.
#[derive(Clone, Copy, Debug)]
pub struct Arch {
    /// Its name, as Rust and `uname -m` have it.
    pub name: &'static str,
    /// The calls of the 64-bit entry.
    pub calls: Calls,
    /// The calls of the 32-bit entry.
    pub compat_calls: Calls,
    /// The bit of a number that marks calls of another ABI at the 64-bit entry, and the numbers that this has
    /// apart from it; 0 where there is none.
    pub abi_bit: u64,
    /// `execve` and `execveat` of that ABI.
    pub abi_execs: Option<(u64, u64)>,
    /// The registers of a call.
    pub registers: Registers,
    /// Whether the kernel sets what a call returns to `-ENOSYS` at the entry. Where it does not, the register
    /// holds the first argument until the call returns, and a copy of that argument lies elsewhere.
    pub enosys_at_entry: bool,
    /// The field of `task_struct`, of 32 bits at least, that says whether a call came through the 32-bit entry.
    pub compat_field: &'static str,
    /// The bit of it.
    pub compat_bit: u32,
    /// Whether `tls` comes before `child_tid` among the arguments of `clone` at the 64-bit entry, as it does at
    /// the 32-bit entry of every machine here (`CONFIG_CLONE_BACKWARDS`).
    pub tls_first: bool,
    /// Whether `copy_thread` refuses a thread pointer outside of the user's addresses.
    pub checks_tls: bool,
    /// Whether a child passes the `sys_exit` tracepoint on its first way to user space. Where it does not, nothing
    /// tells when it got there.
    pub child_passes_exit: bool,
    /// Bytes that a call of a function pushes: where it returns to.
    pub pushed_by_call: u64,
    /// Every kernel lets programs use addresses below the first; none lets them use addresses from the second
    /// on. What lies between depends on the kernel and on the task.
    pub user_end: (u64, u64),
    /// No kernel lets a program use a range that ends here or later.
    pub kernel_half: u64,
}

impl Arch {
    /// Whether `nr` can be one of fork's calls, on either entry. It is cheap, because it is asked for every
    /// system call of the host.
    #[must_use]
    #[inline(always)]
    pub const fn may_fork(&self, nr: u64) -> bool {
        let nr = nr & !self.abi_bit;
        !matches!(self.calls.fork_call(nr), Syscall::None)
            || !matches!(self.compat_calls.fork_call(nr), Syscall::None)
    }

    /// Which of fork's calls `nr` is; `compat` says that the call came through the 32-bit entry.
    #[must_use]
    #[inline(always)]
    pub const fn fork_call(&self, nr: u64, compat: bool) -> Syscall {
        let nr = nr & !self.abi_bit;
        if compat { self.compat_calls.fork_call(nr) } else { self.calls.fork_call(nr) }
    }

    /// Whether `nr` can be one of exec's calls, on either entry. It is cheap too.
    #[must_use]
    #[inline(always)]
    pub const fn may_exec(&self, nr: u64) -> bool {
        let nr = nr & !self.abi_bit;
        let of_abi = match self.abi_execs {
            Some((execve, execveat)) => nr == execve || nr == execveat,
            None => false,
        };
        of_abi || self.calls.is_exec(nr) || self.compat_calls.is_exec(nr)
    }

    /// Whether `nr` is `execve`, and whether it is `execveat`.
    #[must_use]
    #[inline(always)]
    pub const fn exec_call(&self, nr: u64, compat: bool) -> (bool, bool) {
        let nr = nr & !self.abi_bit;
        if compat {
            return (nr == self.compat_calls.execve, nr == self.compat_calls.execveat);
        }
        let (execve, execveat) = match self.abi_execs {
            Some((execve, execveat)) => (nr == execve, nr == execveat),
            None => (false, false),
        };
        (execve || nr == self.calls.execve, execveat || nr == self.calls.execveat)
    }
}

/// x86-64, with the entries of i386 and x32.
///
/// KERNEL: `arch/x86/entry/syscalls/syscall_64.tbl` and `syscall_32.tbl`;
/// `arch/x86/include/uapi/asm/unistd.h` `__X32_SYSCALL_BIT`; `arch/x86/entry/entry_64.S`
/// `entry_SYSCALL_64` (`PUSH_AND_CLEAR_REGS rax=$-ENOSYS`); `arch/x86/include/asm/thread_info.h`
/// `TS_COMPAT`; `arch/x86/kernel/process_64.c` `do_arch_prctl_64`; `arch/x86/include/asm/page_64_types.h`
/// `TASK_SIZE_MAX`, with four levels of page tables and with five.
pub const X86_64: Arch = Arch {
    name: "x86_64",
    calls: Calls {
        clone: 56,
        fork: Some(57),
        vfork: Some(58),
        clone3: 435,
        execve: 59,
        execveat: 322,
    },
    compat_calls: Calls {
        clone: 120,
        fork: Some(2),
        vfork: Some(190),
        clone3: 435,
        execve: 11,
        execveat: 358,
    },
    abi_bit: 0x4000_0000,
    abi_execs: Some((520, 545)),
    registers: Registers {
        number: "orig_ax",
        returned: "ax",
        sp: "sp",
        ip: "ip",
        args: ["di", "si", "dx", "r10", "r8"],
        compat_args: ["bx", "cx", "dx", "si", "di"],
    },
    enosys_at_entry: true,
    compat_field: "thread_info.status",
    compat_bit: 0x2,
    tls_first: false,
    checks_tls: true,
    child_passes_exit: true,
    pushed_by_call: 8,
    user_end: ((1 << 47) - 4096, (1 << 56) - 4096),
    kernel_half: 1 << 63,
};

/// arm64, with the entry of 32-bit ARM.
///
/// A tracer that changes the first argument at the entry of a call changes `regs[0]`; what was called with
/// is `orig_x0`, which alone is there when the call returns.
///
/// KERNEL: `include/uapi/asm-generic/unistd.h`; `arch/arm/tools/syscall.tbl`;
/// `arch/arm64/include/asm/ptrace.h` `struct pt_regs`; `arch/arm64/kernel/syscall.c` `el0_svc_common`;
/// `arch/arm64/include/asm/thread_info.h` `TIF_32BIT`; `arch/arm64/kernel/process.c` `copy_thread`;
/// `arch/arm64/kernel/entry.S` `ret_from_fork`;
/// `arch/arm64/include/asm/processor.h` `TASK_SIZE_MAX`, with 39 bits to 52, and
/// `arch/arm64/include/asm/uaccess.h` `access_ok`: the upper byte of an address may be a tag.
pub const AARCH64: Arch = Arch {
    name: "aarch64",
    calls: Calls { clone: 220, fork: None, vfork: None, clone3: 435, execve: 221, execveat: 281 },
    compat_calls: Calls {
        clone: 120,
        fork: Some(2),
        vfork: Some(190),
        clone3: 435,
        execve: 11,
        execveat: 387,
    },
    abi_bit: 0,
    abi_execs: None,
    registers: Registers {
        number: "syscallno",
        returned: "regs[0]",
        sp: "sp",
        ip: "pc",
        args: ["orig_x0", "regs[1]", "regs[2]", "regs[3]", "regs[4]"],
        compat_args: ["orig_x0", "regs[1]", "regs[2]", "regs[3]", "regs[4]"],
    },
    enosys_at_entry: false,
    compat_field: "thread_info.flags",
    compat_bit: 1 << 22,
    tls_first: true,
    checks_tls: false,
    child_passes_exit: false,
    pushed_by_call: 0,
    user_end: (1 << 39, 0xff80 << 48),
    kernel_half: 0xff80 << 48,
};

/// Every machine.
pub const ARCHES: [&Arch; 2] = [&X86_64, &AARCH64];

/// The machine that this is built for. The kernel side is built for none, and takes its row by name.
#[cfg(not(target_arch = "aarch64"))]
pub const ARCH: &Arch = &X86_64;
/// The machine that this is built for.
#[cfg(target_arch = "aarch64")]
pub const ARCH: &Arch = &AARCH64;

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn each_entry_has_its_own_numbers() {
        let fork = |arch: &Arch, nr, compat| arch.fork_call(nr, compat);
        assert_eq!(fork(&X86_64, 57, false), Syscall::Fork);
        assert_eq!(fork(&X86_64, 0x4000_0038, false), Syscall::Clone, "x32");
        assert_eq!(fork(&X86_64, 57, true), Syscall::None);
        assert_eq!(fork(&AARCH64, 220, false), Syscall::Clone);
        assert_eq!(fork(&AARCH64, 57, false), Syscall::None, "close");
        for arch in ARCHES {
            assert_eq!(fork(arch, 2, true), Syscall::Fork);
            assert_eq!(fork(arch, 190, true), Syscall::Vfork);
            assert_eq!(fork(arch, 2, false), Syscall::None);
            assert_eq!(fork(arch, 435, false), Syscall::Clone3);
        }
    }

    #[test]
    fn what_is_a_fork_or_an_exec_may_be_one() {
        for arch in ARCHES {
            for (nr, compat) in (0..600).flat_map(|nr| [(nr, false), (nr, true)]) {
                if arch.fork_call(nr, compat) != Syscall::None {
                    assert!(arch.may_fork(nr), "{} {nr}", arch.name);
                }
                if arch.exec_call(nr, compat) != (false, false) {
                    assert!(arch.may_exec(nr) && !arch.may_fork(nr), "{} {nr}", arch.name);
                }
            }
            // A number that a tracer has taken away is none.
            assert!(!arch.may_fork(0xffff_ffff) && !arch.may_fork(u64::MAX));
        }
        assert_eq!(X86_64.exec_call(520, false), (true, false), "x32");
        assert_eq!(AARCH64.exec_call(281, false), (false, true));
    }

    #[test]
    fn programs_have_the_lower_addresses() {
        for arch in ARCHES {
            let (inside, outside) = arch.user_end;
            assert!(inside < outside && outside <= arch.kernel_half, "{}", arch.name);
        }
        assert_eq!(ARCH.name, std::env::consts::ARCH);
    }
}
