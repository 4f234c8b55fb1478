//! Where a fork stood still: the parts of the JSON contract about time off the CPU.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::values::Name;

/// What a task was while it stood still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WaitState {
    /// It waited for something.
    Blocked,
    /// It could have run, but had no CPU.
    Runnable,
    /// A signal or a tracer stopped it.
    Stopped,
    /// It had a CPU: of an attempt that is told while it lasts.
    Running,
}

impl WaitState {
    /// As in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Runnable => "runnable",
            Self::Stopped => "stopped",
            Self::Running => "running",
        }
    }
}

/// One time off the CPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wait {
    /// When the task left its CPU: from the start of the attempt; of a child's wait, since the child
    /// was runnable.
    pub at_ns: u64,
    /// Until it was given a CPU again.
    pub dur_ns: u64,
    /// The stage it was in. It comes from the kernel stack when the task left, so it is right where
    /// marks are coarse; from the marks where no function of a stage was on the stack. Absent where
    /// neither tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Name>,
    /// What the task was meanwhile.
    pub state: WaitState,
    /// Why it stood still: a name that `fork-trace explain` knows.
    pub reason: Name,
    /// The lock it waited for, or where it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Name>,
    /// Who kept it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Keeper>,
    /// The functions on the kernel stack when it left, the innermost first; absent while it was
    /// runnable, and where the stack could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Name>,
}

/// Who kept a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Keeper {
    /// A process, initial pid namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// A thread, initial pid namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tid: Option<u32>,
    /// Its name, read a moment later; absent when it was gone by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// A control group, from the root of its hierarchy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// A CPU, on which other tasks ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Of a lock: it was held for reading, perhaps by several threads; the one that is named was the
    /// last to take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reads: Option<bool>,
}

/// Further times off the CPU, each shorter than those that are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitsMore {
    /// How many.
    pub count: u64,
    /// All together.
    pub dur_ns: u64,
    /// Of it: the time of those in which the task was runnable, and not held back by a quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preempted_ns: Option<u64>,
    /// Of it: the time of those in which a CPU quota held the task back when it left its CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_ns: Option<u64>,
}

/// What took the time of a slow attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slow {
    /// A stable name: `wait:` and a reason, or `work:` and a stage.
    pub kind: Name,
    /// The share of `held_ns`, between 0 and 1, rounded to thousandths.
    pub share: Share,
    /// In words, with the figures that prove it.
    pub text: String,
    /// What would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<Name>,
}

impl Slow {
    /// An attempt that held its caller for so long, in nanoseconds, is slow.
    pub const FROM_NS: u64 = 10_000_000;
}

/// A share, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub u16);

impl Serialize for Share {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = f64::deserialize(deserializer)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(serde::de::Error::custom("a share lies between 0 and 1"));
        }
        // The cast is safe within that range.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        Ok(Self((share * 1000.0).round() as u16))
    }
}

impl Share {
    /// `part` of `whole`.
    #[must_use]
    pub fn of(part: u64, whole: u64) -> Self {
        let thousandths = u128::from(part) * 1000 / u128::from(whole.max(1));
        Self(u16::try_from(thousandths.min(1000)).unwrap_or(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_between_0_and_1() {
        assert_eq!(serde_json::to_string(&Share::of(997, 1000)).unwrap(), "0.997");
        assert_eq!(serde_json::to_string(&Share::of(5, 0)).unwrap(), "1.0");
        for text in ["0.997", "0.0", "1.0", "0.123"] {
            let share: Share = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&share).unwrap(), text);
        }
        assert!(serde_json::from_str::<Share>("1.5").is_err());
    }
}
