//! The small values of the JSON contract, each with its spelling: names, moments, kinds, system
//! calls, flags words.

use std::{borrow::Cow, fmt, str::FromStr};

use anyhow::Context as _;
use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A name. In a live trace it is borrowed from a table; one that was read from JSON is owned.
pub type Name = Cow<'static, str>;

/// A moment of the realtime clock. It is written as in RFC 3339, in UTC and with nine digits of the
/// second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ts(pub Timestamp);

impl fmt::Display for Ts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.9}", self.0)
    }
}

impl FromStr for Ts {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Ts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(9));
        serializer.serialize_str(&PRINTER.timestamp_to_string(&self.0))
    }
}

impl<'de> Deserialize<'de> for Ts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// What kind of task an attempt makes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A process.
    Process,
    /// A process for which the caller waits: vfork, `posix_spawn`.
    Vfork,
    /// A thread.
    Thread,
    /// A kernel thread.
    Kthread,
    /// A thread of `io_uring`.
    IoWorker,
    /// Another task that the kernel makes: a helper program, a worker of vhost.
    Other,
}

impl Kind {
    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Vfork => "vfork",
            Self::Thread => "thread",
            Self::Kthread => "kthread",
            Self::IoWorker => "io-worker",
            Self::Other => "other",
        }
    }
}

/// The system call of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// `fork(2)`.
    Fork,
    /// `vfork(2)`.
    Vfork,
    /// `clone(2)`.
    Clone,
    /// `clone3(2)`.
    Clone3,
}

impl Call {
    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fork => "fork",
            Self::Vfork => "vfork",
            Self::Clone => "clone",
            Self::Clone3 => "clone3",
        }
    }
}

/// A flags word, written as `"0x1200011"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HexFlags(pub u64);

impl fmt::Display for HexFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl FromStr for HexFlags {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix("0x").context("a flags word begins with 0x")?;
        let word = u64::from_str_radix(digits, 16);
        word.map(Self).with_context(|| format!("{text} is no flags word"))
    }
}

impl Serialize for HexFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexFlags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
