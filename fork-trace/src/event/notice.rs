//! Lines about the trace itself: losses and warnings.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::values::Name;

/// Name in [`Loss::by`]: attempts that were not written any more when the trace was stopped, because they
/// came faster than they were shown or an output took them.
pub const UNWRITTEN: &str = "unwritten";

/// The same of follow-ups.
pub const UNWRITTEN_FOLLOW_UPS: &str = "follow_up_unwritten";

/// Records that were lost since the last line of this kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// How many attempts lost their record.
    pub records: u64,
    /// How many records were lost for each reason: `ring_full`, `in_flight_full`, and losses of
    /// follow-up records.
    pub by: BTreeMap<Name, u64>,
    /// The loss happened after this moment, in nanoseconds of `CLOCK_MONOTONIC`.
    pub since_mono_ns: u64,
}

/// Something that the user should know beside the attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warning {
    /// The warning's stable name.
    pub code: Name,
    /// The warning in words.
    pub text: String,
    /// What the user can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The id of the fork that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork_id: Option<String>,
}
