//! The caller's ptrace tracer, from its record.

use fork_trace_common::{
    flags::{CLONE_VFORK, SIGCHLD},
    record::{ForkRecord, bits},
};

use crate::event::{
    caller::Ptrace,
    values::{Call, Name},
};

/// The caller's tracer, and the stop by which it learns of the child.
///
/// KERNEL: kernel/fork.c `kernel_clone` chooses the event; include/linux/ptrace.h
/// `ptrace_event_enabled`.
#[must_use]
pub fn ptrace(record: &ForkRecord, call: Option<Call>) -> Option<Ptrace> {
    const CLONE_UNTRACED: u64 = 0x80_0000;
    /// Number, and name; include/uapi/linux/ptrace.h.
    const EVENTS: [(u32, &str); 3] = [(1, "fork"), (2, "vfork"), (3, "clone")];
    if record.ptrace == 0 || record.tracer == 0 {
        return None;
    }
    let vfork = record.clone_flags & CLONE_VFORK != 0;
    let wanted = match (vfork, call, record.exit_signal) {
        (true, ..) => 2,
        (_, Some(Call::Fork), _) | (_, _, SIGCHLD) => 1,
        _ => 3,
    };
    let known = record.has(bits::FLAGS) && record.has(bits::EXIT_SIGNAL) && record.has(bits::CHILD);
    let asked = record.ptrace & (1 << (3 + wanted)) != 0;
    let told = known && asked && record.clone_flags & CLONE_UNTRACED == 0;
    let event = EVENTS.iter().find(|(number, _)| told && *number == wanted);
    Some(Ptrace { tracer_pid: record.tracer, event: event.map(|(_, name)| Name::Borrowed(*name)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracer_is_told_by_the_stop_it_asked_for() {
        let event = |ptrace: u32, flags: u64, exit_signal: u64| {
            let mut record = ForkRecord::zeroed();
            record.bits = bits::FLAGS | bits::EXIT_SIGNAL | bits::CHILD;
            record.tracer = 7;
            record.ptrace = ptrace;
            record.clone_flags = flags;
            record.exit_signal = exit_signal;
            ptrace_event(&record)
        };
        fn ptrace_event(record: &ForkRecord) -> Option<Option<String>> {
            Some(ptrace(record, None)?.event.map(Name::into_owned))
        }
        let all = 1 | 1 << 4 | 1 << 5 | 1 << 6;
        assert_eq!(event(0, 17, 17), None);
        assert_eq!(event(1, 17, 17), Some(None), "not asked for");
        assert_eq!(event(all, 17, 17), Some(Some("fork".to_owned())));
        assert_eq!(event(all, 0x4100, 17), Some(Some("vfork".to_owned())));
        assert_eq!(event(all, 0x3d_0f00, 0), Some(Some("clone".to_owned())));
        assert_eq!(event(all, 0x80_0011, 17), Some(None), "CLONE_UNTRACED");
    }
}
