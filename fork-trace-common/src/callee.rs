//! Functions that tell a stage by being on the kernel stack, for stages that have no function of
//! their own, or whose function the compiler puts into its caller.
//!
//! A row stands for the innermost function that belongs to one stage alone. General functions, which
//! others call too, have no row here.

use crate::{
    function::FUNCTIONS,
    stage::{STAGES, Stage},
};

/// Functions of which one is on the kernel stack of every task inside a fork: the newest name first.
pub const ENTRIES: &[&str] = &["kernel_clone", "_do_fork", "copy_process"];

/// A function, and the stage that it tells.
pub const CALLEES: &[(&str, Stage)] = &[
    // KERNEL: kernel/fork.c `dup_mmap`: the parent's mmap_lock is the only lock of a fork that is
    // taken in this way.
    ("down_write_killable", Stage::MmapWriteLock),
    ("uprobe_start_dup_mmap", Stage::DupMmap),
    ("dup_userfaultfd", Stage::DupMmap),
    ("dup_userfaultfd_complete", Stage::DupMmap),
    ("dup_mm", Stage::CopyMm),
    ("alloc_thread_stack_node", Stage::DupTaskStruct),
    ("memcg_charge_kernel_stack", Stage::DupTaskStruct),
    ("__delayacct_tsk_init", Stage::CgroupFork),
    ("cgroup_css_set_fork", Stage::CgroupCanFork),
    ("__copy_io", Stage::CopyIo),
    ("__pidfd_prepare", Stage::PidfdPrepare),
    ("user_events_fork", Stage::UserEventsFork),
    ("ptrace_event_pid", Stage::PtraceEventPid),
    // KERNEL: kernel/fork.c `kernel_clone` calls it from `ptrace_event_pid`. On the way back to user
    // space it is not on a stack of the attempt any more.
    ("ptrace_notify", Stage::PtraceEventPid),
    ("wait_for_vfork_done", Stage::WaitForVforkDone),
    ("wait_for_completion_killable", Stage::WaitForVforkDone),
    ("wait_for_completion_state", Stage::WaitForVforkDone),
];

/// Functions that tell a stage where a timer has interrupted them. On the stack of a task that waits
/// they do not: what it waits for is part of the stage around them.
pub const WORKERS: &[(&str, Stage)] = &[
    ("__pte_alloc", Stage::PteAlloc),
    ("__pmd_alloc", Stage::PteAlloc),
    ("__pud_alloc", Stage::PteAlloc),
    ("__p4d_alloc", Stage::PteAlloc),
    ("try_to_free_pages", Stage::TryToFreePages),
    ("try_to_free_mem_cgroup_pages", Stage::TryToFreePages),
    ("try_to_compact_pages", Stage::TryToFreePages),
];

/// The stage that the innermost of some functions tells; `names` begins with the innermost.
pub fn stage_of<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<Stage> {
    names.find_map(|name| callee(name).or_else(|| own(name)))
}

/// The stage that one function tells where a sample finds it on the stack.
#[must_use]
pub fn sampled_stage(name: &str) -> Option<Stage> {
    let worker = WORKERS.iter().find(|(worker, _)| *worker == name).map(|(_, stage)| *stage);
    worker.or_else(|| callee(name)).or_else(|| own(name))
}

fn callee(name: &str) -> Option<Stage> {
    CALLEES.iter().find(|(callee, _)| *callee == name).map(|(_, stage)| *stage)
}

/// The stage whose own function it is.
fn own(name: &str) -> Option<Stage> {
    let row = FUNCTIONS.iter().find(|row| row.names.contains(&name))?;
    STAGES.iter().find(|stage| stage.function == Some(row.function)).map(|row| row.stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_function_tells() {
        let stage = |names: &[&str]| stage_of(names.iter().copied());
        let locked = ["schedule", "percpu_rwsem_wait", "cgroup_can_fork", "copy_process"];
        assert_eq!(stage(&locked), Some(Stage::CgroupCanFork));
        let waits = ["schedule", "dup_userfaultfd_complete", "dup_mmap", "copy_process"];
        assert_eq!(stage(&waits), Some(Stage::DupMmap));
        assert_eq!(stage(&["down_write_killable", "copy_process"]), Some(Stage::MmapWriteLock));
        assert_eq!(stage(&["kmem_cache_alloc", "copy_process"]), Some(Stage::CopyProcess));
        assert_eq!(stage(&["schedule", "do_syscall_64"]), None);
    }

    #[test]
    fn what_reclaims_tells_only_of_work() {
        let stack = ["shrink_node", "try_to_free_pages", "__pte_alloc", "copy_page_range"];
        assert_eq!(stack.iter().find_map(|name| sampled_stage(name)), Some(Stage::TryToFreePages));
        assert_eq!(stage_of(stack.iter().copied()), Some(Stage::CopyPageRange));
        assert_eq!(sampled_stage("perf_event_init_task"), Some(Stage::PerfEventInitTask));
        assert_eq!(sampled_stage("dup_userfaultfd"), Some(Stage::DupMmap));
        assert_eq!(sampled_stage("shrink_node"), None);
    }

    #[test]
    fn no_function_tells_twice() {
        let all = || CALLEES.iter().chain(WORKERS);
        for (place, (name, _)) in all().enumerate() {
            assert!(all().skip(place + 1).all(|(other, _)| other != name), "{name}");
            assert_eq!(own(name), None, "{name}");
        }
    }
}
