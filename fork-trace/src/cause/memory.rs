//! Whether memory refused: a control group's limit, or the promise that a copy needs.

use fork_trace_common::{flags::CLONE_VM, refusal::known, stage::Stage};

use crate::{
    cause::{
        case::Case,
        finding::{Details, Finding},
        look::group_hint,
    },
    event::{memory::PAGE_BYTES, values::Name},
};

/// `vm.overcommit_memory`: promise whatever is asked for.
const ALWAYS: u64 = 1;
/// `vm.overcommit_memory`: never promise more than there is.
const NEVER: u64 = 2;

/// A group with fewer pages left than a fork takes at once is short of memory.
/// KERNEL: mm/memcontrol.c charges 64 pages at a time.
const SHORT_PAGES: u64 = 64;

/// What is kept back from a caller where nothing more than there is may be promised, at most.
/// KERNEL: mm/util.c `__vm_enough_memory`: `vm.admin_reserve_kbytes` and `vm.user_reserve_kbytes`, 8
/// and 128 MiB unless they were set.
const RESERVED_BYTES: u64 = 136 << 20;

/// What the attempt took is given back by now, so a group at its limit has some pages left. Only the
/// caller's own group is known to have been out of memory or not.
pub(super) fn cgroup_memory(case: &Case<'_>) -> Finding {
    // Then the kill is the cause, and tells the group.
    if case.oom_victim() == Some(true) { Finding::No } else { short_group(case) }
}

/// The same, whoever was killed for it.
pub(super) fn short_group(case: &Case<'_>) -> Finding {
    let Some(refusal) = case.with(known::MEMORY) else {
        return Finding::No;
    };
    let pages = &refusal.memory;
    let short = pages.current.saturating_add(SHORT_PAGES) >= pages.max;
    let own = pages.place == 0;
    let proven = match case.out_of_group_memory() {
        Some(false) if own => return Finding::No,
        Some(moved) => moved && own,
        None => false,
    };
    if !proven && !short {
        return Finding::No;
    }
    let details = group_details(case);
    // Another thread of the group may have been the one that moved the counter.
    let promised = case.after.overcommit_mode == Some(NEVER) && case.window.admits(Stage::DupMmap);
    if proven && !promised { Finding::Yes(details) } else { Finding::Maybe(details) }
}

/// The group with the least left, by the names that its hierarchy has.
fn group_details(case: &Case<'_>) -> Details {
    let pages = case.with(known::MEMORY).map(|refusal| refusal.memory).unwrap_or_default();
    let path = case.group_path();
    let file = if case.after.memory_v1 { "memory.limit_in_bytes" } else { "memory.max" };
    Details {
        limit: Some(Name::Borrowed(file)),
        current: Some(pages.current.saturating_mul(PAGE_BYTES)),
        max: Some(pages.max.saturating_mul(PAGE_BYTES)),
        what: Some(file.to_owned()),
        hint: path
            .as_deref()
            .map(|path| group_hint(path, case.after.memory_mount.as_deref(), "MemoryMax", file)),
        path,
        ..Details::default()
    }
}

/// KERNEL: mm/util.c `__vm_enough_memory`, which kernel/fork.c `dup_mmap` asks for each mapping with
/// `VM_ACCOUNT`.
pub(super) fn overcommit(case: &Case<'_>) -> Finding {
    if case.any(CLONE_VM) == Some(true) {
        return Finding::No;
    }
    match case.after.overcommit_mode {
        Some(ALWAYS) => Finding::No,
        Some(NEVER) => strict(case),
        Some(_) => heuristic(case),
        None => Finding::Fallback(Details::default()),
    }
}

/// Bytes of the caller's private writable mappings, read while the call was refused.
fn private_bytes(case: &Case<'_>) -> Option<u64> {
    let refusal = case.with(known::PRIVATE_PAGES)?;
    Some(refusal.private_pages.saturating_mul(PAGE_BYTES))
}

/// Only a single mapping that is larger than memory and swap together is refused.
fn heuristic(case: &Case<'_>) -> Finding {
    let Some(there_is) = case.after.memory_and_swap_bytes else {
        return Finding::Fallback(Details::default());
    };
    if private_bytes(case).is_some_and(|all| all <= there_is) {
        return Finding::No;
    }
    let details = |asked| Details {
        limit: Some(Name::Borrowed("vm.overcommit_memory")),
        max: Some(there_is),
        asked,
        read_afterwards: Some(true),
        what: Some(
            "a mapping larger than memory and swap together (vm.overcommit_memory=0)".to_owned(),
        ),
        hint: Some(
            "use posix_spawn or vfork, which copy nothing; or map it with MAP_NORESERVE or in \
             parts, add swap, or set vm.overcommit_memory=1"
                .to_owned(),
        ),
        ..Details::default()
    };
    match case.after.largest {
        Some(largest) if largest.bytes > there_is => match largest.promised {
            Some(true) => Finding::Yes(details(Some(largest.bytes))),
            _ => Finding::Maybe(details(Some(largest.bytes))),
        },
        Some(_) => Finding::No,
        // The caller is gone, and only the sum of its mappings is known.
        None if private_bytes(case).is_some() => Finding::Maybe(details(None)),
        None => Finding::Fallback(Details::default()),
    }
}

/// What was promised to all may not pass a limit.
fn strict(case: &Case<'_>) -> Finding {
    let what = "more memory than may be promised (vm.overcommit_memory=2)".to_owned();
    let hint =
        "raise vm.overcommit_ratio or vm.overcommit_kbytes, add swap, or use posix_spawn or \
                vfork, which copy nothing"
            .to_owned();
    let Some((current, max)) = case.after.committed_bytes else {
        let details = Details { what: Some(what), hint: Some(hint), ..Details::default() };
        return Finding::Fallback(details);
    };
    let asked = private_bytes(case);
    // It was read afterwards, and if the caller has exited since, without what the caller had then.
    let copies = if case.after.largest.is_some() { 1 } else { 2 };
    let fits = |asked: u64| {
        let wanted = asked.saturating_mul(copies).saturating_add(RESERVED_BYTES);
        current.saturating_add(wanted) < max
    };
    if asked.is_some_and(fits) {
        return Finding::No;
    }
    Finding::Maybe(Details {
        limit: Some(Name::Borrowed("vm.overcommit_memory")),
        current: Some(current),
        max: Some(max),
        asked,
        read_afterwards: Some(true),
        what: Some(what),
        hint: Some(hint),
        ..Details::default()
    })
}
