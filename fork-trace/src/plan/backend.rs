//! Which kinds of source a trace may use, and which is the best of them that this host has.

use crate::{
    error::UserError,
    host::{facts::Facts, functions::ProbeKind},
};

/// From which kinds of source the points come that bound stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The best source that this host has, for each stage.
    Auto,
    /// Kernel functions, probed by BTF trampolines, and fork's own tracepoints.
    Fentry,
    /// Kernel functions, probed by breakpoints, and fork's own tracepoints.
    Kprobe,
    /// Tracepoints that fire inside a fork (slab call sites, timers, locks, FPU), and fork's own.
    Inner,
    /// Only fork's own tracepoints.
    Tracepoint,
}

impl Backend {
    /// The ways in which it probes functions, the preferred way first.
    #[must_use]
    pub const fn functions(self) -> &'static [ProbeKind] {
        match self {
            Self::Auto => &[ProbeKind::Fentry, ProbeKind::Kprobe],
            Self::Fentry => &[ProbeKind::Fentry],
            Self::Kprobe => &[ProbeKind::Kprobe],
            Self::Inner | Self::Tracepoint => &[],
        }
    }

    /// Whether it uses inner marks.
    #[must_use]
    pub const fn inner(self) -> bool {
        matches!(self, Self::Auto | Self::Inner)
    }

    /// Its name in output and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::Inner => "inner",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// The best kind of source that this host has, of those that `backend` may use.
///
/// # Errors
/// [`UserError::Backend`] where this host has none of them.
pub(super) fn used(facts: &Facts, backend: Backend) -> Result<Backend, UserError> {
    let probed = |how| facts.probes.values().flatten().any(|probe| probe.how == how);
    let of = |how| if how == ProbeKind::Fentry { Backend::Fentry } else { Backend::Kprobe };
    if let Some(how) = backend.functions().iter().copied().find(|how| probed(*how)) {
        return Ok(of(how));
    }
    match backend {
        Backend::Tracepoint => Ok(backend),
        Backend::Auto | Backend::Inner if has_inner(facts) => Ok(Backend::Inner),
        Backend::Auto => Ok(Backend::Tracepoint),
        Backend::Inner => Err(UserError::Backend { name: "inner", reason: no_inner(facts) }),
        Backend::Fentry | Backend::Kprobe => {
            let name = backend.name();
            Err(UserError::Backend { name, reason: no_function(facts) })
        }
    }
}

/// Whether any inner mark can be used.
pub(super) fn has_inner(facts: &Facts) -> bool {
    facts.inner.values().any(Result::is_ok)
}

/// The reason why no inner mark can be used.
pub(super) fn no_inner(facts: &Facts) -> String {
    let reason = facts.inner.values().find_map(|mark| mark.as_ref().err());
    reason.map_or("no inner tracepoint is known", String::as_str).to_owned()
}

/// The reason why no function is probed.
fn no_function(facts: &Facts) -> String {
    let each = || facts.probes.values().find_map(|probe| probe.as_ref().err());
    let reason = facts.no_functions.as_ref().or_else(each);
    reason.map_or("no function was probed", String::as_str).to_owned()
}
