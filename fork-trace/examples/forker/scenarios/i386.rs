//! i386 system calls, made by `int 0x80` in this 64 bit process.
//!
//! A kernel without them answers with SIGSEGV. A handler steps over the instruction, so that no
//! child is needed to find out.

use std::{
    ffi::{c_int, c_void},
    ptr,
};

use crate::{
    attempt::attempt,
    call::{Call, Note, Outcome, Skip},
    sys::{
        self,
        clone_args::CloneArgs,
        flag,
        int80::{LowPage, int80, int80_fork},
    },
};

/// The i386 numbers of the calls that make a task.
const FORK: i32 = 2;
const CLONE: i32 = 120;
const VFORK: i32 = 190;
const CLONE3: i32 = 435;

/// An ordinary child's exit signal, as wide as an i386 argument.
const SIGCHLD: u32 = 17;

/// Where the kernel's x86-64 `struct ucontext` holds registers, in words: three words of flags,
/// link and stack come before them, of which stack has three.
const RAX: usize = 5 + 13;
const RIP: usize = 5 + 16;

/// `int 0x80`.
const INT80: [u8; 2] = [0xcd, 0x80];

/// Makes a refused `int 0x80` return ENOSYS. Any other fault kills, as it should.
extern "C" fn step_over(_signal: c_int, _info: *mut c_void, context: *mut c_void) {
    let words = context.cast::<i64>();
    let (rax, rip) = (words.wrapping_add(RAX), words.wrapping_add(RIP));
    // SAFETY: the kernel passes a whole ucontext to a handler with SA_SIGINFO.
    let at = unsafe { rip.read() };
    let code = ptr::with_exposed_provenance::<[u8; 2]>(usize::try_from(at).unwrap_or(0));
    // SAFETY: a fault at an instruction that could be fetched; two bytes are inside the program.
    let refused = !code.is_null() && unsafe { code.read_unaligned() } == INT80;
    if !refused {
        // SAFETY: SIG_DFL is always valid; the instruction then faults again.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        return;
    }
    // SAFETY: the register's place in the ucontext.
    unsafe { rip.write(at + 2) };
    // SAFETY: the register's place in the ucontext.
    unsafe { rax.write(-i64::from(libc::ENOSYS)) };
}

/// Skips on kernels without the i386 calls. It tries one that makes no task.
fn require_i386() -> Outcome {
    const GETPID: i32 = 20;
    let handler = step_over as *const () as libc::sighandler_t;
    // SAFETY: of the SA_SIGINFO kind, and uses nothing but the context it is given.
    let old = unsafe { sys::handle(libc::SIGSEGV, handler, libc::SA_SIGINFO | libc::SA_ONSTACK) };
    let _old = old.map_err(|errno| Skip::step("handle SIGSEGV", errno))?;
    match int80(GETPID, [0; 3]) {
        1.. => Ok(()),
        _ => Err(Skip("the kernel has no i386 system calls (IA32 emulation is off)".to_owned())),
    }
}

/// Makes a task with up to two numbers as arguments.
fn make(call: Call, nr: i32, first: u32, second: u32) {
    let call = call.note(Note::Int80);
    // SAFETY: numbers only, or an address the caller has made for this.
    attempt(&call, || unsafe { int80_fork(nr, first, second) });
}

pub(crate) fn fork() -> Outcome {
    require_i386()?;
    make(Call::fork(), FORK, 0, 0);
    Ok(())
}

pub(crate) fn vfork() -> Outcome {
    require_i386()?;
    make(Call::vfork(), VFORK, 0, 0);
    Ok(())
}

pub(crate) fn clone() -> Outcome {
    require_i386()?;
    make(Call::clone(flag::SIGCHLD), CLONE, SIGCHLD, 0);
    Ok(())
}

pub(crate) fn clone3() -> Outcome {
    require_i386()?;
    let args = CloneArgs::new(0);
    let (call, size) = (Call::clone3(&args), size_of_val(&args));
    let low = LowPage::holding(args).map_err(|errno| Skip::step("mmap below 4 GiB", errno))?;
    let [address, size] = [low.address(), size].map(|word| u32::try_from(word).unwrap_or(0));
    make(call, CLONE3, address, size);
    Ok(())
}

/// Calls that make no task but share a number with one that does: the i386 numbers 56 to 58 are
/// clone, fork and vfork in 64 bit, and the 64 bit numbers 2, 120 and 190 are fork, clone and vfork
/// in i386.
pub(crate) fn traps() -> Outcome {
    require_i386()?;
    let nobody = u32::MAX >> 1;
    for (nr, args) in [(56, [0; 3]), (57, [nobody, 0, 0]), (58, [0; 3])] {
        int80(nr, args); // mpx (gone), setpgid of no process, ulimit (gone)
    }
    let mut ids = [0_u32; 3];
    let [r, e, s] = ids.each_mut().map(ptr::from_mut);
    let path = c"/nonexistent/forker".as_ptr();
    // SAFETY: open of a NUL-ended path.
    unsafe { libc::syscall(2, path, libc::O_RDONLY, 0) };
    // SAFETY: getresgid into three places.
    unsafe { libc::syscall(120, r, e, s) };
    // SAFETY: fsetxattr of no file, with a NUL-ended name and no value.
    unsafe { libc::syscall(190, -1, path, path, 0, 0) };
    Ok(())
}
