//! Clone flags as 64 bit words: `libc` has them as `c_int`, which is too narrow for those of
//! clone3.

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
