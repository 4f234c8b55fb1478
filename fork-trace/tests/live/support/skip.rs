//! Whether a test can run here. One that cannot says why and passes, unless
//! `FORK_TRACE_LIVE=require` is set and all that lacks is root.

use std::{any::type_name, env};

/// Stands first in every live test: without root there is nothing to trace.
macro_rules! live_test {
    () => {
        if !$crate::support::skip::can_trace($crate::support::skip::test_of(&|| ())) {
            return;
        }
    };
}

/// Ends the test that it stands in, and says why it cannot run here.
macro_rules! skip {
    ($($why:tt)*) => {
        return println!(
            "skip {}: {}",
            $crate::support::skip::test_of(&|| ()),
            format_args!($($why)*)
        )
    };
}

pub(crate) use {live_test, skip};

/// The name of the test that a closure was written in.
pub(crate) fn test_of<T>(_closure: &T) -> &'static str {
    let path = type_name::<T>().trim_end_matches("::{{closure}}");
    path.strip_prefix("live::").unwrap_or(path)
}

/// Whether live tests can run here; if not, this says why.
pub(crate) fn can_trace(test: &str) -> bool {
    if nix::unistd::Uid::effective().is_root() {
        return true;
    }
    let required = env::var_os("FORK_TRACE_LIVE").is_some_and(|value| value == "require");
    assert!(!required, "{test} needs root, and FORK_TRACE_LIVE=require forbids to skip it");
    println!("skip {test}: needs root");
    false
}
