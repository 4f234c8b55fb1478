//! The raw system calls that make a task, each in one assembler block.
//!
//! In: numbers and flags. Out: the kernel's own return value in the caller. The child never comes
//! back into Rust: it makes the calls of a script and exits, all without touching the stack, so the
//! same block serves fork, vfork and children that share this program's memory. Knows nothing of
//! attempts or reports.

use std::{arch::asm, ffi::c_int, io, marker::PhantomData, os::fd::AsRawFd as _, ptr};

use crate::sys::{self, Errno};

/// Clone flags, as 64 bit words; `libc` has them as `c_int`, too narrow for clone3's.
pub(crate) mod flag {
    pub(crate) const VM: u64 = 0x100;
    pub(crate) const FS: u64 = 0x200;
    pub(crate) const FILES: u64 = 0x400;
    pub(crate) const SIGHAND: u64 = 0x800;
    pub(crate) const PIDFD: u64 = 0x1000;
    pub(crate) const VFORK: u64 = 0x4000;
    pub(crate) const PARENT: u64 = 0x8000;
    pub(crate) const THREAD: u64 = 0x1_0000;
    pub(crate) const NEWNS: u64 = 0x2_0000;
    pub(crate) const SYSVSEM: u64 = 0x4_0000;
    pub(crate) const SETTLS: u64 = 0x8_0000;
    pub(crate) const PARENT_SETTID: u64 = 0x10_0000;
    pub(crate) const DETACHED: u64 = 0x40_0000;
    pub(crate) const UNTRACED: u64 = 0x80_0000;
    pub(crate) const NEWUTS: u64 = 0x400_0000;
    pub(crate) const NEWIPC: u64 = 0x800_0000;
    pub(crate) const NEWUSER: u64 = 0x1000_0000;
    pub(crate) const NEWPID: u64 = 0x2000_0000;
    pub(crate) const NEWNET: u64 = 0x4000_0000;
    pub(crate) const IO: u64 = 0x8000_0000;
    pub(crate) const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    pub(crate) const INTO_CGROUP: u64 = 0x2_0000_0000;
    /// What glibc's `pthread_create` asks for.
    pub(crate) const PTHREAD: u64 = 0x3d_0f00;
    /// The exit signal of an ordinary child, in clone's low byte.
    pub(crate) const SIGCHLD: u64 = 17;
}

/// One system call made by a child; laid out as the assembler reads it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct ChildCall {
    nr: u64,
    args: [u64; 3],
}

impl ChildCall {
    const fn new(nr: u64, args: [u64; 3]) -> Self {
        Self { nr, args }
    }

    /// Close a file.
    const fn close(fd: u64) -> Self {
        Self::new(3, [fd, 0, 0])
    }

    /// Wait for a file, at most this long. The struct must outlive the child's use of it.
    fn poll(file: &libc::pollfd, ms: u64) -> Self {
        Self::new(7, [ptr::from_ref(file).addr() as u64, 1, ms])
    }

    /// Become another program. Path and vectors must outlive the child's use of them.
    pub(crate) fn exec(path: *const i8, argv: *const *mut i8, envp: *const *mut i8) -> Self {
        Self::new(59, [path.addr() as u64, argv.addr() as u64, envp.addr() as u64])
    }

    /// End with this status; a script that runs out ends with 0.
    pub(crate) const fn exit(status: u64) -> Self {
        Self::new(60, [status, 0, 0])
    }
}

/// The longest time poll takes; a larger one would be negative, and mean for ever.
const LONGEST_MS: u32 = i32::MAX.unsigned_abs();

/// What holds a scripted child until its time is over or its parent has died: a pipe that only the
/// parent writes to. A death signal alone would come too late for a child that has not asked yet.
pub(crate) struct Leash {
    file: libc::pollfd,
    _reader: io::PipeReader,
    writer: io::PipeWriter,
}

impl Leash {
    /// Made by the process that is to be the parent.
    pub(crate) fn new() -> Result<Self, Errno> {
        let (reader, writer) = io::pipe().map_err(sys::number)?;
        let file = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        Ok(Self { file, _reader: reader, writer })
    }

    /// What the child does.
    pub(crate) fn script(&self, ms: u32) -> [ChildCall; 2] {
        let writer = u64::from(self.writer.as_raw_fd().unsigned_abs());
        [ChildCall::close(writer), ChildCall::poll(&self.file, ms.min(LONGEST_MS).into())]
    }
}

/// The user's `struct clone_args`, all of its 88 bytes.
#[derive(Default)]
#[repr(C)]
pub(crate) struct CloneArgs<'a> {
    pub(crate) flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    pub(crate) exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
    /// What the addresses above borrow.
    borrowed: PhantomData<&'a mut c_int>,
}

impl<'a> CloneArgs<'a> {
    /// A child like fork's, with these flags.
    pub(crate) fn new(flags: u64) -> Self {
        Self { flags, exit_signal: flag::SIGCHLD, ..Self::default() }
    }

    /// Send another signal than SIGCHLD at the child's end; 0 for none.
    pub(crate) fn exit_signal(mut self, signal: u64) -> Self {
        self.exit_signal = signal;
        self
    }

    /// Ask for a pidfd, stored in `fd`.
    pub(crate) fn pidfd(mut self, fd: &'a mut c_int) -> Self {
        self.pidfd = ptr::from_mut(fd).addr() as u64;
        self
    }

    /// Ask for a child in this control group.
    pub(crate) fn cgroup(mut self, group: &'a std::fs::File) -> Self {
        self.cgroup = group.as_raw_fd().unsigned_abs().into();
        self
    }

    /// Ask for this tid in the caller's pid namespace.
    pub(crate) fn set_tid(mut self, tid: &'a mut c_int) -> Self {
        self.set_tid = ptr::from_mut(tid).addr() as u64;
        self.set_tid_size = 1;
        self
    }
}

const _: () = assert!(size_of::<CloneArgs<'_>>() == 88, "the kernel's size");

/// Makes a system call; should it return 0, makes the script's calls and exits.
///
/// # Safety
/// The pointers among `args` must be valid for what the call does with them, and `script` must live
/// as long as a child that shares this memory may read it.
unsafe fn fork_call(nr: i64, args: [u64; 5], script: &[ChildCall]) -> c_int {
    let [a, b, c, d, e] = args;
    let range = script.as_ptr_range();
    let mut word = nr;
    // SAFETY: the caller answers for the pointers; the child stays in the block and writes to no
    // memory, so the stack it may share is intact when the parent goes on.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 4f",
            "2:",
            "cmp r12, r13",
            "je 3f",
            "mov rax, [r12]",
            "mov rdi, [r12 + 8]",
            "mov rsi, [r12 + 16]",
            "mov rdx, [r12 + 24]",
            "add r12, 32",
            "syscall",
            "jmp 2b",
            "3:",
            "xor edi, edi",
            "mov eax, 60", // exit
            "syscall",
            "4:",
            inlateout("rax") word,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            in("r12") range.start, in("r13") range.end,
            lateout("rcx") _, lateout("r11") _,
        );
    }
    narrow(word)
}

/// A kernel return value; tids and errnos fit.
fn narrow(word: i64) -> c_int {
    c_int::try_from(word).unwrap_or(c_int::MIN)
}

/// The fork system call.
pub(crate) fn fork() -> c_int {
    // SAFETY: takes no arguments.
    unsafe { fork_call(libc::SYS_fork, [0; 5], &[]) }
}

/// The vfork system call; the child runs `script` while this thread is held.
pub(crate) fn vfork(script: &[ChildCall]) -> c_int {
    // SAFETY: takes no arguments; the script outlives the child because the parent waits for it.
    unsafe { fork_call(libc::SYS_vfork, [0; 5], script) }
}

/// The clone system call with every pointer NULL; the child exits at once.
pub(crate) fn clone(flags: u64) -> c_int {
    // SAFETY: the kernel gets no address to write to; the script is empty.
    unsafe { fork_call(libc::SYS_clone, [flags, 0, 0, 0, 0], &[]) }
}

/// As [`clone`], with a script for a child that has its own memory.
pub(crate) fn clone_scripted(flags: u64, script: &[ChildCall]) -> c_int {
    let own_memory = flags & !flag::VM;
    // SAFETY: no address to write to; the child reads its own copy of the script.
    unsafe { fork_call(libc::SYS_clone, [own_memory, 0, 0, 0, 0], script) }
}

/// As [`clone`], for a child that has its own memory and goes on in Rust, where it sees 0.
pub(crate) fn clone_returning(flags: u64) -> c_int {
    let own_memory = flags & !(flag::VM | flag::VFORK);
    // SAFETY: as fork: no address to write to, and the child returns on its own copy of the stack.
    let ret = unsafe { libc::syscall(libc::SYS_clone, own_memory, 0_u64, 0_u64, 0_u64, 0_u64) };
    if ret == -1 { -sys::errno() } else { narrow(ret) }
}

/// The clone system call with a stack of its own for the child, which exits at once.
pub(crate) fn clone_on_stack(flags: u64, stack: &'static [u128]) -> c_int {
    let top = stack.as_ptr_range().end.addr() as u64;
    // SAFETY: the child never touches the stack it gets; the script is empty.
    unsafe { fork_call(libc::SYS_clone, [flags, top, 0, 0, 0], &[]) }
}

/// The clone3 system call with the first `size` bytes of the struct; the child exits at once.
pub(crate) fn clone3(args: &CloneArgs<'_>, size: Clone3Size) -> c_int {
    // SAFETY: the struct has `size` bytes and its addresses are borrows it holds.
    unsafe { clone3_at(ptr::from_ref(args).addr(), size as usize) }
}

/// The sizes of `struct clone_args` that lie inside [`CloneArgs`].
#[derive(Clone, Copy)]
pub(crate) enum Clone3Size {
    /// Smaller than any version of the struct.
    TooSmall = 32,
    /// Linux 5.3.
    V0 = 64,
    /// Linux 5.7.
    V2 = 88,
}

/// The clone3 system call with a struct read from plain words that hold no address.
pub(crate) fn clone3_words(words: &[u64], size: usize) -> c_int {
    let room = size_of_val(words);
    // SAFETY: the kernel reads no further than the words; none of them is a valid user address.
    unsafe { clone3_at(words.as_ptr().addr(), size.min(room)) }
}

/// As [`clone3_words`], with addresses among the words.
///
/// # Safety
/// Each word that the kernel takes for an address must be valid for what it does with it, or one
/// that no program has.
pub(crate) unsafe fn clone3_raw(words: &[u64], size: usize) -> c_int {
    let room = size_of_val(words);
    // SAFETY: as this function asks of its caller.
    unsafe { clone3_at(words.as_ptr().addr(), size.min(room)) }
}

/// The clone3 system call with a NULL struct.
pub(crate) fn clone3_null(size: usize) -> c_int {
    // SAFETY: the kernel reads from address 0 and fails.
    unsafe { clone3_at(0, size) }
}

/// # Safety
/// The struct at `address`, and every address in it, must be valid.
unsafe fn clone3_at(address: usize, size: usize) -> c_int {
    // SAFETY: as this function asks of its caller; the script is empty.
    unsafe { fork_call(libc::SYS_clone3, [address as u64, size as u64, 0, 0, 0], &[]) }
}

/// A call by `int 0x80` that makes no task: the i386 numbers, three arguments.
pub(crate) fn int80(nr: i32, args: [u32; 3]) -> c_int {
    let [b, c, d] = args.map(u64::from);
    let mut word = i64::from(nr);
    // SAFETY: callers pass numbers only, no addresses; rbx is put back.
    unsafe {
        asm!(
            "xchg rbx, {b}",
            "int 0x80",
            "xchg rbx, {b}",
            b = inout(reg) b => _,
            inlateout("rax") word,
            in("rcx") c, in("rdx") d,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    low(word)
}

/// A call by `int 0x80` that makes a task; the child exits at once, by the 64 bit exit.
///
/// # Safety
/// `first` and `second` must be what the call asks for; addresses among them must be valid.
pub(crate) unsafe fn int80_fork(nr: i32, first: u32, second: u32) -> c_int {
    let (b, c) = (u64::from(first), u64::from(second));
    let mut word = i64::from(nr);
    // SAFETY: the caller answers for the addresses; the child writes to no memory and does not
    // leave the block; rbx is put back.
    unsafe {
        asm!(
            "xchg rbx, {b}",
            "int 0x80",
            "test eax, eax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, 60", // exit
            "syscall",
            "2:",
            "xchg rbx, {b}",
            b = inout(reg) b => _,
            inlateout("rax") word,
            in("rcx") c, in("rdx") 0_u64, in("rsi") 0_u64, inlateout("rdi") 0_u64 => _,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    low(word)
}

/// The low half of a register, where an i386 call returns.
fn low(word: i64) -> c_int {
    let [a, b, c, d, ..] = word.to_le_bytes();
    c_int::from_le_bytes([a, b, c, d])
}
