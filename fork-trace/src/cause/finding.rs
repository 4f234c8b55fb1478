//! What is found of one row of the tables, and with which values.

use crate::event::{cause::Holder, values::Name};

/// What the evidence says about one row of the table.
#[derive(Debug)]
pub(super) enum Finding {
    /// The evidence rules the reason out.
    No,
    /// Only the error number speaks for the reason, so it counts only if no other is found.
    Fallback(Details),
    /// The reason is possible.
    Maybe(Details),
    /// The reason is there, though something else that cannot be ruled out may have come before.
    Probably(Details),
    /// The evidence shows the reason.
    Yes(Details),
}

/// The values that show which limit was reached, and whose it is; each is `None` where a row has no
/// such value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Details {
    /// The limit's name.
    pub(super) limit: Option<Name>,
    /// The value of the counter that the limit applies to.
    pub(super) current: Option<u64>,
    /// The limit's value, in the same unit.
    pub(super) max: Option<u64>,
    /// How much more the caller asked for, in the same unit.
    pub(super) asked: Option<u64>,
    /// `Some(true)` where some of this was read when the call had failed already.
    pub(super) read_afterwards: Option<bool>,
    /// The control group or namespace that the limit belongs to.
    pub(super) path: Option<String>,
    /// How deep that namespace is nested.
    pub(super) level: Option<u32>,
    /// The user whose limit it is.
    pub(super) uid: Option<u32>,
    /// The file descriptor that the caller gave.
    pub(super) fd: Option<u32>,
    /// The id that the caller asked for.
    pub(super) id: Option<u32>,
    /// What holds that id.
    pub(super) held_by: Option<Holder>,
    /// Better words than the row's.
    pub(super) what: Option<String>,
    /// A better hint than the row's.
    pub(super) hint: Option<String>,
}
