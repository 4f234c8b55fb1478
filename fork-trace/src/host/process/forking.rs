//! Tasks that are inside a fork just now, as `/proc` shows them: by the system call that a task is in,
//! and by its kernel stack.
//!
//! A task that runs, or could, is not among them: the kernel shows neither of it.
//!
//! KERNEL: fs/proc/base.c `proc_pid_syscall`, `proc_pid_stack`: only for those who may trace the task.

use std::{
    fs,
    io::{self, ErrorKind},
};

use fork_trace_common::{arch::ARCH, callee::ENTRIES, record::Syscall};

use crate::host::process::{numbers, stat::Stat, status_field, threads};

/// A task that is inside a fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forking {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Its name.
    pub comm: String,
    /// Its state, as `/proc/PID/stat` has it.
    pub letter: char,
    /// How often it has left its CPU: two looks with the same number found the same wait.
    pub switches: u64,
    /// The functions on its kernel stack, the innermost first.
    pub names: Vec<String>,
    /// Process id of its tracer.
    pub tracer: Option<u32>,
    /// The call has returned: the task is on its way back to user space.
    pub returns: bool,
}

impl Forking {
    /// Whether the task has not run since it was looked at. Everybody may see that.
    #[must_use]
    pub fn stands_still(&self) -> bool {
        let status = read(self.pid, self.tid, "status");
        // A task that came back is counted only when it leaves again, and it runs until then.
        status.is_some_and(|status| {
            let state = status_field(status.as_bytes(), "State:");
            let runs = state.is_none_or(|state| state.starts_with('R'));
            !runs && switches(&status) == Some(self.switches)
        })
    }
}

/// All tasks of the host that are inside a fork.
///
/// # Errors
/// `/proc` cannot be read, or does not show the system calls of others.
pub fn all() -> io::Result<Vec<Forking>> {
    let own = std::process::id();
    let mut found = Vec::new();
    // Of some processes nobody may see it, of others only those with the rights to trace them.
    let (mut shown, mut denied) = (false, None);
    for pid in numbers("/proc")?.into_iter().filter(|pid| *pid != own) {
        match fs::read(format!("/proc/{pid}/syscall")) {
            Ok(_) => shown = true,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => denied = Some(error),
            // A process may end at any moment.
            Err(_) => continue,
        }
        found.extend(threads(pid).into_iter().filter_map(|tid| of(pid, tid)));
    }
    match denied {
        Some(error) if !shown => Err(error),
        _ => Ok(found),
    }
}

/// The task, if it is inside a fork.
#[must_use]
pub fn of(pid: u32, tid: u32) -> Option<Forking> {
    let read = |file| read(pid, tid, file);
    let call = read("syscall")?;
    let nr = call.split(' ').next()?.parse().ok().filter(|nr| ARCH.may_fork(*nr))?;
    let names = names(&read("stack")?);
    let inside = names.iter().any(|name| ENTRIES.contains(&name.as_str()));
    let Stat { comm, state: letter, .. } = Stat::of_thread(pid, tid)?;
    // The 32-bit numbers are other calls of the 64-bit entry, and the stack tells the two apart.
    let old = ARCH.fork_call(nr, false) == Syscall::None;
    if !inside && (old || !is_on_its_way(&names)) {
        return None;
    }
    let status = read("status")?;
    let switches = switches(&status)?;
    let tracer = status_field(status.as_bytes(), "TracerPid:").and_then(|pid| pid.parse().ok());
    let tracer = tracer.filter(|pid| *pid > 0);
    Some(Forking { pid, tid, comm, letter, switches, names, tracer, returns: !inside })
}

/// A file of a thread. A name in it may hold bytes that are no text; they are not looked at.
fn read(pid: u32, tid: u32, file: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/task/{tid}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// How often a task has left its CPU.
fn switches(status: &str) -> Option<u64> {
    let number = |name| status_field(status.as_bytes(), name)?.parse::<u64>().ok();
    Some(number("voluntary_ctxt_switches:")? + number("nonvoluntary_ctxt_switches:")?)
}

/// Whether a stack is of a task that is kept on its way back to user space.
fn is_on_its_way(names: &[String]) -> bool {
    let leaves = |name: &str| {
        ["get_signal", "do_notify_resume"].contains(&name) || name.contains("exit_to_user_mode")
    };
    names.iter().any(|name| leaves(name))
}

/// The functions on a stack: `[<0>] name+0x1/0x2`.
fn names(stack: &str) -> Vec<String> {
    let function = |line: &str| {
        let (_, place) = line.split_once("] ")?;
        let name = place.split('+').next()?;
        Some(name.split('.').next().unwrap_or(name).to_owned())
    };
    stack.lines().filter_map(function).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_read() {
        let text = "[<0>] percpu_rwsem_wait+0x10/0x20\n[<0>] dup_mmap.part.0+0x1/0x2\nbroken\n";
        assert_eq!(names(text), ["percpu_rwsem_wait", "dup_mmap"]);
    }

    #[test]
    fn who_waits_for_something_else_is_not_forking() {
        let own = std::process::id();
        assert_eq!(of(own, own), None);
        assert_eq!(of(u32::MAX, u32::MAX), None);
    }
}
