//! What the chain counts beside what it shows.

/// What was counted on the way, apart from what was shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Records of tasks made that came through the ring.
    pub received: u64,
    /// Attempts that made a task and were left out because enough were shown.
    pub cut: u64,
    /// Attempts that are taken to have been under way when tracing began or ended.
    pub under_way: u64,
    /// Those among them that made a task.
    pub under_way_tasks: u64,
    /// Attempts that were not shown any more when the trace was stopped.
    pub unwritten: u64,
    /// Of these, those that made a task.
    pub unwritten_tasks: u64,
    /// Follow-ups that were not shown any more.
    pub unwritten_follow_ups: u64,
}

/// What was lost on this side of the ring.
#[derive(Clone, Copy, Debug, Default)]
pub struct LostHere {
    /// Children that were not watched for an exec.
    pub unwatched: u64,
    /// Attempts that were not shown any more.
    pub unwritten: u64,
    /// Follow-ups that were not shown any more.
    pub unwritten_follow_ups: u64,
}
