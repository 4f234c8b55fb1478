//! The words that options take, each with its help and its meaning.

use clap_complete::Shell;

use crate::{
    event::{largest::Figure, summary::By, values::Kind},
    output::{options::Color, recorder::Trigger},
    plan::backend::Backend,
};

/// Kinds of tasks: name, help, meaning.
pub(super) const KINDS: [(&str, &str, Kind); 6] = [
    ("process", "Processes", Kind::Process),
    ("vfork", "Processes for which the caller waits: vfork, posix_spawn", Kind::Vfork),
    ("thread", "Threads", Kind::Thread),
    ("kthread", "Kernel threads", Kind::Kthread),
    ("io-worker", "Threads of io_uring", Kind::IoWorker),
    ("other", "Other tasks that the kernel makes: helper programs, workers of vhost", Kind::Other),
];

/// By what a summary has groups: name, help, meaning.
pub(super) const GROUPS: [(&str, &str, By); 8] = [
    ("kind", "What is made: processes, threads", By::Kind),
    ("comm", "The caller's name", By::Comm),
    ("exe", "The program that the caller runs", By::Exe),
    ("cgroup", "The caller's control group", By::Cgroup),
    ("unit", "The caller's systemd unit", By::Unit),
    ("uid", "The caller's user", By::Uid),
    ("cause", "Why it failed", By::Cause),
    ("stack", "The caller's user-space stack; tracing, this includes --stacks", By::Stack),
];

/// By what `top` has groups: name, help, meaning.
pub(super) const TOP_GROUPS: [(&str, &str, By); 5] = [
    ("comm", "The caller's name", By::Comm),
    ("exe", "The program that the caller runs", By::Exe),
    ("unit", "The caller's systemd unit", By::Unit),
    ("cgroup", "The caller's container, or else its control group", By::Cgroup),
    ("uid", "The caller's user", By::Uid),
];

/// In which order a replay shows attempts.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// In that of the recording.
    Recorded,
    /// Those with the largest figure first.
    Largest(Figure),
}

/// By what a replay sorts: name, help, meaning.
pub(super) const SORTS: [(&str, &str, Order); 5] = [
    ("time", "As it was recorded", Order::Recorded),
    ("total", "Time in the call, total_ns", Order::Largest(Figure::Total)),
    ("held", "Time for which the caller was held, held_ns", Order::Largest(Figure::Held)),
    ("off-cpu", "Of total_ns, the time off the CPU, off_cpu_ns", Order::Largest(Figure::OffCpu)),
    ("child-wait", "Time until the child had a CPU, queued_ns", Order::Largest(Figure::ChildWait)),
];

/// Backends: name, help, meaning.
pub(super) const BACKENDS: [(&str, &str, Backend); 5] = [
    ("auto", "The best this host has, stage by stage", Backend::Auto),
    ("fentry", "Kernel functions, by BTF trampoline", Backend::Fentry),
    ("kprobe", "Kernel functions, by breakpoint", Backend::Kprobe),
    (
        "inner",
        "Also tracepoints that fire inside a fork: slab call sites, timers, locks, FPU",
        Backend::Inner,
    ),
    ("tracepoint", "Only fork's own tracepoints", Backend::Tracepoint),
];

/// What makes the flight recorder write, a signal apart: name, help, meaning.
pub(super) const TRIGGERS: [(&str, &str, Trigger); 4] = [
    ("failure", "An attempt failed", Trigger::Failure),
    ("limit", "An attempt failed at a limit", Trigger::Limit),
    ("stuck", "An attempt has lasted for a second and has not ended", Trigger::Stuck),
    ("storm", "There were more attempts within a second than --record-storm says", Trigger::Storm),
];

/// Shells that can complete: name, where the text goes, meaning.
pub(super) const SHELLS: [(&str, &str, Shell); 3] = [
    (
        "bash",
        "/usr/share/bash-completion/completions/fork-trace, or source it in ~/.bashrc",
        Shell::Bash,
    ),
    ("zsh", "_fork-trace in a folder of $fpath", Shell::Zsh),
    ("fish", "~/.config/fish/completions/fork-trace.fish", Shell::Fish),
];

/// When to use colour: name, help, meaning.
pub(super) const COLORS: [(&str, &str, Color); 3] = [
    ("auto", "On a terminal, unless `NO_COLOR` is set", Color::Auto),
    ("always", "Always", Color::Always),
    ("never", "Never", Color::Never),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_of_a_table_has_its_own_name() {
        for (name, _, kind) in KINDS {
            assert_eq!(name, kind.name());
        }
        for (name, _, by) in GROUPS.into_iter().chain(TOP_GROUPS) {
            assert_eq!(name, by.name());
        }
        for (name, _, trigger) in TRIGGERS {
            assert_eq!(name, trigger.name());
        }
        for (name, _, backend) in BACKENDS {
            assert_eq!(name, backend.name());
        }
    }
}
