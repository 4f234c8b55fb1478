//! What is known of the host beside its forks.

use crate::event::fill::Fill;

/// What is not told by events, but read now and then. What cannot be read is not shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Processes that have ended and were not waited for, by their parent's name, the most first.
    pub zombies: Option<Vec<(String, u64)>>,
    /// Attempts that have lasted for a second or more.
    pub stuck: Option<u64>,
    /// Limits, and how full they are.
    pub limits: Vec<Fill>,
}
