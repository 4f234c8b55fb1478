//! What an output tells of the attempts.

/// What is told of the attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Each attempt.
    #[default]
    Forks,
    /// Each stage of each attempt, in place of the attempt.
    Stages,
    /// Text: the tree of processes at the end, in place of the attempts. JSON: each attempt.
    Tree,
}
