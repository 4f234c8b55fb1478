//! A fork by libc with handlers that take their time: in the caller before the call, in the caller
//! after it, and in the child.
//!
//! Out: one line, with how long each handler took by its own clock.

use std::{
    ffi::c_int,
    hint::black_box,
    io::{Read as _, Write as _, pipe},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use serde::Serialize;

use crate::{
    call::Skip,
    sys::{self, Errno, fork::libc_fork},
};

/// The truth about the fork.
#[derive(Debug, Serialize)]
pub(crate) struct Truth {
    r#type: &'static str,
    parent_tid: c_int,
    child: c_int,
    prepare_ns: u64,
    parent_ns: u64,
    child_ns: u64,
}

/// How long each handler takes.
const PREPARE_NS: u64 = 1_000_000;
const PARENT_NS: u64 = 2_000_000;
const CHILD_NS: u64 = 3_000_000;

/// How long each has taken.
static PREPARE: AtomicU64 = AtomicU64::new(0);
static PARENT: AtomicU64 = AtomicU64::new(0);
static CHILD: AtomicU64 = AtomicU64::new(0);

/// Works for `ns`, and writes down how long that was.
fn work(ns: u64, took: &AtomicU64) {
    let start_ns = sys::now_ns();
    while sys::now_ns() - start_ns < ns {}
    took.store(sys::now_ns() - start_ns, Ordering::Relaxed);
}

extern "C" fn prepare() {
    work(PREPARE_NS, &PREPARE);
}

extern "C" fn parent() {
    work(PARENT_NS, &PARENT);
}

extern "C" fn child() {
    work(CHILD_NS, &CHILD);
}

/// Forks once beside `threads` that allocate as fast as they can, `pause_ms` after its handlers were registered.
pub(crate) fn run(threads: usize, pause_ms: u64) -> Result<Truth, Skip> {
    // SAFETY: the handlers take no locks and allocate nothing.
    let registered = unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    if registered != 0 {
        return Err(Skip::step("register handlers", registered));
    }
    thread::sleep(Duration::from_millis(pause_ms));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut size = 1;
                while !stop.load(Ordering::Relaxed) {
                    drop(black_box(vec![0_u8; size]));
                    size = size % 100_000 + 1;
                }
            });
        }
        let made = fork();
        stop.store(true, Ordering::Relaxed);
        made.map_err(|errno| Skip::step("fork with handlers", errno))
    })
}

fn fork() -> Result<Truth, Errno> {
    let (mut reader, mut writer) = pipe().map_err(sys::number)?;
    let made = libc_fork();
    if made == 0 {
        let took = CHILD.load(Ordering::Relaxed).to_ne_bytes();
        drop(writer.write_all(&took));
        sys::exit_now(0);
    }
    if made < 0 {
        return Err(-made);
    }
    drop(writer);
    let mut took = [0; 8];
    reader.read_exact(&mut took).map_err(sys::number)?;
    sys::reap(made);
    Ok(Truth {
        r#type: "handlers",
        parent_tid: sys::tid(),
        child: made,
        prepare_ns: PREPARE.load(Ordering::Relaxed),
        parent_ns: PARENT.load(Ordering::Relaxed),
        child_ns: u64::from_ne_bytes(took),
    })
}
