//! How full a limit is.

use crate::event::values::Name;

/// A limit, and where its counter stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// The limit's name.
    pub limit: Name,
    /// Of a control group its path.
    pub path: Option<String>,
    /// Where its counter stands.
    pub current: u64,
    /// The limit's value, which is not 0.
    pub max: u64,
    /// Both are bytes.
    pub is_bytes: bool,
}

impl Fill {
    /// Whether there is no more room than a fifth.
    #[must_use]
    pub fn is_near(&self) -> bool {
        u128::from(self.current) * 5 >= u128::from(self.max) * 4
    }

    /// The larger, the fuller.
    #[must_use]
    pub fn thousandths(&self) -> u64 {
        let share = u128::from(self.current) * 1000 / u128::from(self.max.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}
