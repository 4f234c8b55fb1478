//! What the live tests have in common.

mod host;
mod lines;
pub(crate) mod skip;
mod trace;

pub(crate) use self::{
    host::{Background, Cgroup, Folder, Mount, Programs, python, slower, slowness},
    lines::{
        accounted, by_fork, check, functions_are_probed, is_attempt, lines, median, ns, number,
        of_type, read, stage, summary, warned,
    },
    skip::{live_test, skip},
    trace::{
        FileTrace, HostTrace, fork_trace, forker, kill, one_fork, run, sampling_fork_trace, tool,
        trace, trace_forker, wait,
    },
};
