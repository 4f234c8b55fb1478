//! Forks that stand still: one fork of each kind of trouble, with its own truth.
//!
//! Out: one line, with the caller's clock around the call and the CPU time that it used meanwhile.
//! The difference is what it stood still.

use std::{
    ffi::{c_int, c_long},
    fs,
    io::{Read as _, Write as _, pipe},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::{
    call::Skip,
    held::{TIMES, Trouble, Truth, in_group, off_ns, truth, until},
    host::cgroup::Hierarchy,
    shortage,
    sys::{
        self, Errno,
        fork::{self, libc_fork},
        memory::touch,
        script::Leash,
        trouble,
    },
};

/// How long what keeps a fork lasts: longer than such a fork works on a slow machine.
const HELD_MS: u64 = 1000;
/// The same of a vfork: after a second it would be shown while it is held.
const VFORK_MS: u32 = 400;
/// Memory of forks that are to take a while: some hundred milliseconds on a slow machine.
const MUCH: usize = 768 << 20;
/// When a long fork is surely under way.
const SOON_MS: u64 = 8;

/// Makes forks of a kind: one, or `count` beside hogs.
pub(crate) fn run(trouble: Trouble, count: u32) -> Result<Vec<Truth>, Skip> {
    if trouble == Trouble::Hogs {
        return hogs(count).map_err(|errno| Skip::step("fork beside hogs", errno));
    }
    one(trouble).map(|truth| vec![truth])
}

fn one(trouble: Trouble) -> Result<Truth, Skip> {
    let made = match trouble {
        Trouble::None => touch(MUCH).and_then(|()| by_libc(trouble)),
        Trouble::Idle => idle(),
        Trouble::Quota => return quota(),
        Trouble::MmapLock => mmap_lock(),
        Trouble::Userfaultfd => userfaultfd(),
        Trouble::Ptrace => ptrace(),
        Trouble::Vfork => vfork(),
        Trouble::Freezer => return freezer(),
        Trouble::SignalStop => signal_stop(),
        Trouble::PageIo => return shortage::page_io(),
        Trouble::Reclaim => return shortage::reclaim(),
        Trouble::Hogs => by_libc(trouble),
    };
    made.map_err(|errno| Skip::step("make a fork that stands still", errno))
}

fn by_libc(trouble: Trouble) -> Result<Truth, Errno> {
    truth(trouble, libc_fork)
}

/// A process that does `what` and is killed when it is no longer needed.
struct Helper(c_int);

impl Helper {
    fn start(what: impl FnOnce()) -> Result<Self, Errno> {
        let parent = sys::tgid();
        let child = libc_fork();
        if child == 0 {
            sys::die_with(parent);
            what();
            sys::exit_now(0);
        }
        if child < 0 { Err(-child) } else { Ok(Self(child)) }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended.
        sys::kill(self.0, libc::SIGKILL).ok();
        sys::reap(self.0);
    }
}

fn idle() -> Result<Truth, Errno> {
    touch(MUCH)?;
    trouble::stay_on_one_cpu()?;
    let (mut hear, mut call) = pipe().map_err(sys::number)?;
    // It wakes up while the fork is under way, and takes the CPU.
    let _busy = Helper::start(move || {
        while hear.read_exact(&mut [0]).is_ok() {
            sys::sleep_ms(SOON_MS);
            let end_ns = sys::now_ns() + HELD_MS * 1_000_000;
            while sys::now_ns() < end_ns {}
        }
    })?;
    trouble::be_idle()?;
    until_held(|| {
        call.write_all(b".").map_err(sys::number)?;
        by_libc(Trouble::Idle)
    })
}

fn hogs(count: u32) -> Result<Vec<Truth>, Errno> {
    let many = thread::available_parallelism().map_or(1, usize::from) + 1;
    let _hogs: Vec<_> = (0..many)
        .map(|_| {
            Helper::start(|| {
                loop {
                    std::hint::spin_loop();
                }
            })
        })
        .collect::<Result<_, Errno>>()?;
    let mut random = sys::now_ns() | 1;
    let fork = |_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        touch((random & 0x7_ffff) as usize)?;
        // Libc would work on for longer before the caller can look at its clock.
        truth(Trouble::Hogs, fork::fork)
    };
    (0..count).map(fork).collect()
}

fn quota() -> Result<Truth, Skip> {
    let trouble = Trouble::Quota;
    let hierarchy = Hierarchy::of("cpu")?;
    let skip = |errno| Skip::step("set a CPU quota", errno);
    // A millisecond of every second: the least quota and the longest period that the kernel accepts.
    let (file, little, all) = match hierarchy.v1 {
        true => ("cpu.cfs_quota_us", "1000", "-1"),
        false => ("cpu.max", "1000 1000000", "max"),
    };
    touch(MUCH).map_err(skip)?;
    // From 6.18 on a fork is held back only when it is on its way out, and has worked until then.
    let held = |truth: &Truth| off_ns(truth) >= HELD_MS * 1_000_000 / 2;
    until(TIMES, held, || {
        let group = hierarchy.group().map_err(skip)?;
        if hierarchy.v1 {
            group.set("cpu.cfs_period_us", "1000000").map_err(skip)?;
        }
        // With a quota that lasts, the caller may be held back again before it looks at its clock.
        let beside = || {
            sys::sleep_ms(SOON_MS);
            group.set(file, little)?;
            sys::sleep_ms(HELD_MS);
            group.set(file, all).map(drop)
        };
        in_group(trouble, &group, beside, || by_libc(trouble))
    })
}

fn mmap_lock() -> Result<Truth, Errno> {
    static STOP: AtomicBool = AtomicBool::new(false);
    let filler = thread::spawn(|| {
        while !STOP.load(Ordering::Relaxed) {
            trouble::fill_memory(MUCH / 2);
        }
    });
    sys::sleep_ms(SOON_MS);
    // The lock may be free for a moment, or the caller stand behind others for longer than behind it.
    let blocked = |truth: &Truth| {
        let off_ns = off_ns(truth);
        truth.delay_ns.is_none_or(|delay_ns| off_ns > 3 * delay_ns && off_ns > 20_000_000)
    };
    let made = until(TIMES, blocked, || truth(Trouble::MmapLock, fork::fork));
    STOP.store(true, Ordering::Relaxed);
    // It does nothing that could panic.
    filler.join().ok();
    made
}

fn userfaultfd() -> Result<Truth, Errno> {
    let fd = trouble::userfaultfd()?;
    let monitor = thread::spawn(move || {
        sys::sleep_ms(HELD_MS);
        trouble::read_event(fd);
    });
    // By the raw call: libc's would hold the locks of malloc, which the monitor may need.
    let made = truth(Trouble::Userfaultfd, fork::fork);
    // It does nothing that could panic.
    monitor.join().ok();
    sys::close(fd);
    made
}

/// The fork is made by a tracee, and its tracer is this process.
fn ptrace() -> Result<Truth, Errno> {
    let (mut reader, mut writer) = pipe().map_err(sys::number)?;
    let parent = sys::tgid();
    let tracee = libc_fork();
    if tracee == 0 {
        sys::die_with(parent);
        sys::kill(sys::tgid(), libc::SIGSTOP).ok();
        if let Ok(truth) = by_libc(Trouble::Ptrace) {
            let numbers = [truth.start_ns, truth.end_ns, truth.cpu_ns];
            let child = u64::from(truth.child.unsigned_abs());
            let bytes: Vec<u8> =
                numbers.into_iter().chain([child]).flat_map(u64::to_ne_bytes).collect();
            drop(writer.write_all(&bytes));
        }
        sys::exit_now(0);
    }
    drop(writer);
    trouble::wait_for_stop(tracee)?;
    trouble::ptrace(libc::PTRACE_SEIZE, tracee, c_long::from(libc::PTRACE_O_TRACEFORK))?;
    sys::kill(tracee, libc::SIGCONT)?;
    while let Ok((stopped, status)) = trouble::wait_for_stop(-1) {
        if !libc::WIFSTOPPED(status) {
            if stopped == tracee {
                break;
            }
            continue;
        }
        let event = status >> 16;
        if event == libc::PTRACE_EVENT_FORK || stopped != tracee && event != 0 {
            sys::sleep_ms(HELD_MS);
        }
        let signal = if event != 0 { 0 } else { libc::WSTOPSIG(status) };
        // One that was killed meanwhile is no matter.
        trouble::ptrace(libc::PTRACE_CONT, stopped, signal.into()).ok();
    }
    let mut bytes = [0; 32];
    reader.read_exact(&mut bytes).map_err(sys::number)?;
    let mut numbers = bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    let mut next = || numbers.next().unwrap_or_default();
    Ok(Truth {
        r#type: "wait",
        trouble: Trouble::Ptrace,
        parent_tid: tracee,
        start_ns: next(),
        end_ns: next(),
        cpu_ns: next(),
        delay_ns: None,
        switches: None,
        child: c_int::try_from(next()).unwrap_or(0),
    })
}

fn vfork() -> Result<Truth, Errno> {
    let leash = Leash::new()?;
    let script = leash.script(VFORK_MS);
    truth(Trouble::Vfork, || fork::vfork(&script))
}

fn freezer() -> Result<Truth, Skip> {
    let unified = Hierarchy::unified();
    let older = Hierarchy::of("freezer");
    let (hierarchy, file, freeze, thaw, done) = match older {
        Ok(older) if older.v1 => {
            (older, "freezer.state", "FROZEN", "THAWED", ("freezer.state", "FROZEN"))
        }
        _ => (
            unified?.without_controller(),
            "cgroup.freeze",
            "1",
            "0",
            ("cgroup.events", "frozen 1"),
        ),
    };
    let skip = |errno| Skip::step("make a group to freeze", errno);
    let group = hierarchy.group().map_err(skip)?;
    touch(MUCH).map_err(skip)?;
    let beside = || {
        sys::sleep_ms(SOON_MS);
        group.set(file, freeze)?;
        wait_until(|| group.shows(done.0, done.1));
        sys::sleep_ms(HELD_MS);
        group.set(file, thaw).map(drop)
    };
    let trouble = Trouble::Freezer;
    until_held(|| in_group(trouble, &group, beside, || by_libc(trouble)))
}

/// Makes forks until one is held, or for some times: on a busy machine a fork may be over before
/// what is to hold it, or begin after it.
fn until_held<E>(make: impl FnMut() -> Result<Truth, E>) -> Result<Truth, E> {
    until(TIMES, |truth: &Truth| off_ns(truth) >= HELD_MS * 1_000_000 * 3 / 4, make)
}

/// Waits until something is so, but not for ever: a fork goes on for a while before it is held.
fn wait_until(is_so: impl Fn() -> bool) {
    let end_ns = sys::now_ns() + 5_000_000_000;
    while !is_so() && sys::now_ns() < end_ns {
        sys::sleep_ms(1);
    }
}

fn signal_stop() -> Result<Truth, Errno> {
    touch(MUCH)?;
    until_held(stopped_by_signal)
}

fn stopped_by_signal() -> Result<Truth, Errno> {
    let target = sys::tgid();
    let _stopper = Helper::start(move || {
        sys::sleep_ms(3 * SOON_MS);
        sys::kill(target, libc::SIGSTOP).ok();
        let stat = format!("/proc/{target}/stat");
        wait_until(|| fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T ")));
        sys::sleep_ms(HELD_MS);
        sys::kill(target, libc::SIGCONT).ok();
        sys::sleep_ms(10 * HELD_MS);
    })?;
    sys::sleep_ms(2 * SOON_MS);
    by_libc(Trouble::SignalStop)
}
