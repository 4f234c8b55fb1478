//! Which kernel functions can be probed, and how: pure, from the kernel's type information and its
//! list of symbols.
//!
//! The guard of BTF programs: a trampoline saves as many registers as the type information says
//! that a function has parameters. Where that describes another function of the same name, the
//! kernel crashes (`mm_init` of 5.10 and 6.1). So a function is taken by BTF only where its
//! parameters are those of the table.

use std::collections::{BTreeMap, BTreeSet};

use fork_trace_common::function::{FUNCTIONS, Function, FunctionRow, NO_RETURN, Returns};

use crate::host::btf::Btf;

/// How a function is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// By BTF trampoline.
    Fentry,
    /// By breakpoint.
    Kprobe,
}

impl ProbeKind {
    /// As in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }

    /// Names of the object's programs for `function` begin so: at entry, and at return.
    #[must_use]
    pub const fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Fentry => ["fentry_", "fexit_"],
            Self::Kprobe => ["kprobe_", "kretprobe_"],
        }
    }
}

/// A function that is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// How.
    pub how: ProbeKind,
    /// The kernel's name for it.
    pub name: &'static str,
    /// Whether its return is too.
    pub leaves: bool,
}

/// What came of probing: of each function that was wanted the probe, or why there is none.
pub type Probes = BTreeMap<Function, Result<Probe, String>>;

/// Whether a function may be probed.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The kernel's name for it.
    pub name: &'static str,
    /// Value of its arity global: parameters it has, or `NO_RETURN`.
    pub arity: u8,
    /// Whether a BTF program may be attached, or why not.
    pub fentry: Result<(), String>,
}

/// Of each function of the table, how it may be probed, or why not at all.
pub type Candidates = BTreeMap<Function, Result<Candidate, String>>;

/// How many symbols the kernel has of each name of the table.
pub type Counts = BTreeMap<&'static str, usize>;

/// Every name of the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().flat_map(|row| row.names).copied()
}

/// Looks at every function of the table. `counts` is `None` where symbols cannot be read.
///
/// # Errors
/// The type information is broken.
pub fn candidates(btf: &Btf, counts: Option<&Counts>) -> anyhow::Result<Candidates> {
    FUNCTIONS.iter().map(|row| Ok((row.function, candidate(row, btf, counts)?))).collect()
}

fn candidate(
    row: &FunctionRow,
    btf: &Btf,
    counts: Option<&Counts>,
) -> anyhow::Result<Result<Candidate, String>> {
    let count = |name: &str| counts.map(|counts| counts.get(name).copied().unwrap_or_default());
    let exists = |name: &&&'static str| match count(name) {
        Some(count) => count > 0,
        None => btf.has_function(name),
    };
    let Some(name) = row.names.iter().find(exists).copied() else {
        return Ok(Err(format!("this kernel has no function {}", row.id)));
    };
    if count(name).is_some_and(|count| count > 1) {
        return Ok(Err(format!("this kernel has more than one {name}")));
    }
    let signature = btf.signature(name)?;
    let fentry = match &signature {
        Some(found) if row.parameters.contains(&found.parameters.as_str()) => Ok(()),
        Some(found) => {
            Err(format!("the kernel's BTF has {name}({}), another function", found.parameters))
        }
        None => Err(format!("the kernel's BTF has no single {name}")),
    };
    let arity = match &signature {
        _ if matches!(row.returns, Returns::Nothing) => NO_RETURN,
        Some(found) if fentry.is_ok() && !found.returns => NO_RETURN,
        Some(found) => found.arity,
        // A kretprobe finds the value in a register, however many parameters there are.
        None => 0,
    };
    Ok(Ok(Candidate { name, arity, fentry }))
}

/// The functions of `wanted` as if each were probed in the first of these ways that it allows.
#[must_use]
pub fn assumed(candidates: &Candidates, wanted: &BTreeSet<Function>, ways: &[ProbeKind]) -> Probes {
    let assumed = |function: &Function| {
        let probe = match candidates.get(function)? {
            Ok(candidate) => candidate.assumed(*function, ways),
            Err(reason) => Err(reason.clone()),
        };
        Some((*function, probe))
    };
    wanted.iter().filter_map(assumed).collect()
}

impl Candidate {
    /// The first of these ways that it allows, or why it allows none.
    fn assumed(&self, function: Function, ways: &[ProbeKind]) -> Result<Probe, String> {
        let allowed = ways.iter().copied().find(|how| self.allows(*how).is_ok());
        match (allowed, &self.fentry) {
            (Some(how), _) => Ok(self.probe(function, how)),
            (None, Err(reason)) => Err(reason.clone()),
            (None, Ok(())) => Err("it is not probed".to_owned()),
        }
    }

    /// Whether it may be probed in this way, or why not.
    ///
    /// # Errors
    /// Why not.
    pub fn allows(&self, how: ProbeKind) -> Result<(), String> {
        if how == ProbeKind::Fentry { self.fentry.clone() } else { Ok(()) }
    }

    /// What it is when probed.
    #[must_use]
    pub const fn probe(&self, function: Function, how: ProbeKind) -> Probe {
        let leaves = !(function.row().waits && matches!(how, ProbeKind::Kprobe));
        Probe { how, name: self.name, leaves }
    }
}

/// Those of `wanted` that are worth their cost: a busy one only where `all` is asked for.
#[must_use]
pub fn affordable(wanted: &BTreeSet<Function>, all: bool) -> BTreeSet<Function> {
    wanted.iter().copied().filter(|function| all || !function.row().busy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::btf::tests::function;

    fn of(function: Function, btf: &Btf, symbols: usize) -> Result<Candidate, String> {
        let counts = names().map(|name| (name, symbols)).collect();
        candidates(btf, Some(&counts)).unwrap().remove(&function).unwrap()
    }

    #[test]
    fn the_mm_init_that_crashes_the_kernel_is_never_taken_by_btf() {
        let wrong = of(Function::MmInit, &function("mm_init", &[], false), 1).unwrap();
        let reason = wrong.fentry.unwrap_err();
        assert_eq!(reason, "the kernel's BTF has mm_init(), another function");
        assert_eq!(wrong.name, "mm_init", "a breakpoint needs no types");

        let right = &["mm_struct", "task_struct", "user_namespace"];
        let right = of(Function::MmInit, &function("mm_init", right, true), 1).unwrap();
        assert_eq!((right.fentry, right.arity), (Ok(()), 3));
        let newer = function("mm_init", &["mm_struct", "task_struct"], true);
        assert_eq!(of(Function::MmInit, &newer, 1).unwrap().arity, 2);
    }

    #[test]
    fn a_name_that_is_not_one_function_s_is_not_probed() {
        let btf = function("audit_alloc", &["task_struct"], true);
        assert!(of(Function::AuditAlloc, &btf, 1).is_ok());
        assert_eq!(
            of(Function::AuditAlloc, &btf, 2).unwrap_err(),
            "this kernel has more than one audit_alloc"
        );
        assert_eq!(
            of(Function::AuditAlloc, &btf, 0).unwrap_err(),
            "this kernel has no function audit_alloc"
        );
        let not_in_btf = of(Function::CopyCreds, &btf, 1).unwrap();
        assert_eq!(not_in_btf.fentry, Err("the kernel's BTF has no single copy_creds".to_owned()));
    }

    #[test]
    fn an_older_name_is_found() {
        let btf = function("_do_fork", &["kernel_clone_args"], true);
        let counts = Counts::from([("_do_fork", 1)]);
        let mut found = candidates(&btf, Some(&counts)).unwrap();
        let old = found.remove(&Function::KernelClone).unwrap().unwrap();
        assert_eq!((old.name, old.arity), ("_do_fork", 1));
    }

    #[test]
    fn what_returns_nothing_is_not_read() {
        let btf = function("sched_cgroup_fork", &["task_struct", "kernel_clone_args"], false);
        assert_eq!(of(Function::SchedCgroupFork, &btf, 1).unwrap().arity, NO_RETURN);
    }

    #[test]
    fn busy_functions_are_for_those_who_want_all() {
        let all: BTreeSet<_> = FUNCTIONS.iter().map(|row| row.function).collect();
        assert_eq!(affordable(&all, true), all);
        let default = affordable(&all, false);
        assert!(!default.contains(&Function::PutPid) && default.contains(&Function::CopyPageRange));
    }
}
