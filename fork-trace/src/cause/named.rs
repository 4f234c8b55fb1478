//! What the arguments of a refused call name: a control group, an id.

use fork_trace_common::{
    flags::CLONE_NEWPID,
    refusal::{arg, known},
};

use crate::cause::{case::Case, finding::Details};

/// The group and the descriptor of `CLONE_INTO_CGROUP`.
pub(super) fn group(case: &Case<'_>) -> Details {
    let fd = case.word(arg::CGROUP).and_then(|fd| u32::try_from(fd).ok());
    let path = case.with(known::INTO).and_then(|_| case.group_path());
    Details { fd, path, ..Details::default() }
}

/// The descriptor of `CLONE_INTO_CGROUP` that is open on something else, and on what.
pub(super) fn no_group(case: &Case<'_>) -> Details {
    let of_call = Details { path: None, ..group(case) };
    let (Some(fd), Some(into)) = (of_call.fd, &case.after.into) else { return of_call };
    let what = format!(
        "CLONE_INTO_CGROUP with descriptor {fd}, which is (read afterwards) {into} and no directory \
         of the cgroup2 hierarchy"
    );
    Details { what: Some(what), read_afterwards: Some(true), ..of_call }
}

/// The id of `set_tid`, where it is one, and what holds it.
pub(super) fn id(case: &Case<'_>) -> Details {
    if case.word(arg::SET_TID_SIZE) != Some(1) {
        return Details::default();
    }
    let Some(id) = case.first_tid() else { return Details::default() };
    let held_by = case.after.id_holder.clone();
    let namespace = case.with(known::PID_NS).filter(|_| case.any(CLONE_NEWPID) == Some(false));
    let hint = held_by.as_ref().map(|holder| {
        format!(
            "afterwards it was the id of {}: {} ({}); choose another, or let the kernel choose",
            holder.what.words(),
            holder.comm,
            holder.pid
        )
    });
    Details {
        id: Some(id),
        path: namespace.map(|refusal| format!("pid:[{}]", refusal.children_inum)),
        level: namespace.map(|refusal| refusal.children_level),
        read_afterwards: held_by.is_some().then_some(true),
        held_by,
        hint,
        ..Details::default()
    }
}
