//! Lines that are about the trace and not about one attempt: losses and warnings.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::event::values::Name;

/// Name in [`Loss::by`]: attempts that were not written any more when the trace was stopped, because they
/// came faster than they were shown or an output took them.
pub const UNWRITTEN: &str = "unwritten";

/// The same of follow-ups.
pub const UNWRITTEN_FOLLOW_UPS: &str = "follow_up_unwritten";

/// Records that were lost since the last such line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Attempts whose record was lost.
    pub records: u64,
    /// Where: `ring_full`, `in_flight_full`, and losses of follow-up records.
    pub by: BTreeMap<Name, u64>,
    /// The loss happened after this moment, `CLOCK_MONOTONIC`.
    pub since_mono_ns: u64,
}

/// Something the user should know that is not an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Stable name.
    pub code: Name,
    /// In words.
    pub text: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Id of the fork it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<String>,
}
