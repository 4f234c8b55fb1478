//! A ring of `io_uring` whose workers stand still, each a task of this process that the kernel made.

use std::{
    ffi::{CString, c_int, c_long, c_void},
    ptr,
};

use super::{
    errno::{Errno, check, errno},
    process::close,
};

/// KERNEL: `include/uapi/linux/io_uring.h`: what is mapped of a ring, an operation, and a flag of it.
const OFF_SQ_RING: libc::off_t = 0;
const OFF_SQES: libc::off_t = 0x1000_0000;
const OP_OPENAT: u8 = 18;
const SQE_ASYNC: u8 = 1 << 4;

/// How many operations fit into the ring.
const ENTRIES: u32 = 8;

/// KERNEL: `include/uapi/linux/io_uring.h` `struct io_uring_params`, with `struct io_sqring_offsets`
/// in it.
#[repr(C)]
#[derive(Default)]
struct Params {
    before: [u32; 10],
    head: u32,
    tail: u32,
    mask: u32,
    entries: u32,
    flags: u32,
    dropped: u32,
    array: u32,
    rest: [u32; 13],
}

/// KERNEL: `include/uapi/linux/io_uring.h` `struct io_uring_sqe`, as `IORING_OP_OPENAT` uses it.
#[repr(C)]
struct Operation {
    op: u8,
    flags: u8,
    priority: u16,
    fd: c_int,
    offset: u64,
    address: u64,
    length: u32,
    open_flags: u32,
    rest: [u64; 4],
}

const _: () = assert!(size_of::<Params>() == 120 && size_of::<Operation>() == 64);

/// A FIFO that nobody opens for writing, and the ring whose workers wait to open it for reading.
pub(crate) struct Workers {
    fifo: CString,
}

impl Workers {
    /// Gives the kernel so many operations that each needs a worker of its own. The ring and its
    /// workers stay until this process ends.
    pub(crate) fn start(count: u32) -> Result<Self, Errno> {
        let name = std::env::temp_dir().join(format!("forker-{}", std::process::id()));
        let name = CString::new(name.into_os_string().into_encoded_bytes());
        let workers = Self { fifo: name.map_err(|_nul| libc::EINVAL)? };
        // SAFETY: the path ends with a NUL.
        check(unsafe { libc::mkfifo(workers.fifo.as_ptr(), 0o600) })?;
        workers.open(count.min(ENTRIES))?;
        Ok(workers)
    }

    fn open(&self, count: u32) -> Result<(), Errno> {
        let mut params = Params::default();
        // SAFETY: the kernel fills in the parameters, which have the size that it expects.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, ENTRIES, &raw mut params) };
        let ring = c_int::try_from(ring).map_err(|_large| libc::EBADF)?;
        check(ring)?;
        let bytes = params.array as usize + ENTRIES as usize * size_of::<u32>();
        let queue = map(ring, bytes, OFF_SQ_RING).inspect_err(|_| close(ring))?;
        let operations = map(ring, ENTRIES as usize * size_of::<Operation>(), OFF_SQES)?;
        let word = |at: u32| queue.wrapping_byte_add(at as usize).cast::<u32>();
        for place in 0..count {
            let operation = Operation {
                op: OP_OPENAT,
                flags: SQE_ASYNC,
                priority: 0,
                fd: libc::AT_FDCWD,
                offset: 0,
                address: self.fifo.as_ptr().addr() as u64,
                length: 0,
                open_flags: 0,
                rest: [0; 4],
            };
            let slot = operations.cast::<Operation>().wrapping_add(place as usize);
            // SAFETY: it lies in what was mapped, and the kernel does not look before the call below.
            unsafe { slot.write(operation) };
            let slot = word(params.array).wrapping_add(place as usize);
            // SAFETY: as above.
            unsafe { slot.write(place) };
        }
        // SAFETY: as above.
        unsafe { word(params.tail).write_volatile(count) };
        let (wait_for, flags) = (0, 0);
        // SAFETY: the kernel reads what was mapped and the path, which stays as long as this process.
        let taken = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                ring,
                count,
                wait_for,
                flags,
                ptr::null::<c_void>(),
                0_usize,
            )
        };
        if taken == c_long::from(count) { Ok(()) } else { Err(errno()) }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // SAFETY: the path ends with a NUL.
        unsafe { libc::unlink(self.fifo.as_ptr()) };
    }
}

/// Maps a part of the ring; it stays to the end.
fn map(ring: c_int, bytes: usize, offset: libc::off_t) -> Result<*mut c_void, Errno> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: this asks for new memory at a place that the kernel chooses.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, prot, libc::MAP_SHARED, ring, offset) };
    if at == libc::MAP_FAILED { Err(errno()) } else { Ok(at) }
}
