//! This process's own memory.

#[cfg(target_env = "gnu")]
use nix::libc::malloc_trim;

/// Gives memory that was used and is free again back to the kernel, where the C library keeps it: setting up a trace
/// takes several times as much as tracing does.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and may be called at any time.
    unsafe {
        malloc_trim(0);
    }
}
