//! Which kernel functions can be probed, and how. It is concluded from the kernel's type
//! information and its list of symbols; the module is pure.
//!
//! A program that is attached by BTF needs a guard. Its trampoline saves as many registers as the
//! type information says that the function has parameters. Where the type information describes
//! another function of the same name, the kernel crashes (`mm_init` of 5.10 and 6.1). So a function
//! is probed by BTF only where its parameters are those of the table.

use std::collections::{BTreeMap, BTreeSet};

use fork_trace_common::{
    callee::WORKERS,
    function::{FUNCTIONS, Function, FunctionRow, NO_RETURN, Returns},
    stage::{STAGES, Side, Stage},
};

use crate::host::btf::Btf;

/// How a function is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// By a BTF trampoline.
    Fentry,
    /// By a breakpoint.
    Kprobe,
}

impl ProbeKind {
    /// Its name in output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
        }
    }

    /// How the names of the object's programs begin: first for a function's entry, then for its
    /// return. The function's `id` follows.
    #[must_use]
    pub const fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Fentry => ["fentry_", "fexit_"],
            Self::Kprobe => ["kprobe_", "kretprobe_"],
        }
    }
}

/// How one function is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// By which kind of probe.
    pub how: ProbeKind,
    /// The kernel's name for the function.
    pub name: &'static str,
    /// Whether its return can be probed, and not only its entry.
    pub leaves: bool,
}

/// For each wanted function its probe, or the reason why it has none.
pub type Probes = BTreeMap<Function, Result<Probe, String>>;

/// A function that this kernel has, and how it may be probed.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The kernel's name for the function.
    pub name: &'static str,
    /// The value of the function's arity global in the object: how many parameters it has, or
    /// `NO_RETURN`.
    pub arity: u8,
    /// Whether a BTF program may be attached, or the reason why not.
    pub fentry: Result<(), String>,
}

/// For each function of the table how it may be probed, or the reason why it cannot be.
pub type Candidates = BTreeMap<Function, Result<Candidate, String>>;

/// For each name in the table of functions, how many symbols of the kernel have it.
pub type Counts = BTreeMap<&'static str, usize>;

/// Every name in the table of functions.
pub fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().flat_map(|row| row.names).copied()
}

/// Finds out for every function of the table how it may be probed. `counts` is `None` where the
/// kernel's symbols cannot be read.
///
/// # Errors
/// The type information is broken.
pub(super) fn candidates(btf: &Btf, counts: Option<&Counts>) -> anyhow::Result<Candidates> {
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
        // A kretprobe finds the returned value in a register, whatever the number of parameters.
        None => 0,
    };
    Ok(Ok(Candidate { name, arity, fentry }))
}

/// The probes of the `wanted` functions, if each could be attached in the first of these ways that
/// its candidate allows. Whether the kernel accepts them is seen only when they are attached.
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
    /// The probe in the first of these ways that is allowed, or the reason why none is.
    fn assumed(&self, function: Function, ways: &[ProbeKind]) -> Result<Probe, String> {
        let allowed = ways.iter().copied().find(|how| self.allows(*how).is_ok());
        match (allowed, &self.fentry) {
            (Some(how), _) => Ok(self.probe(function, how)),
            (None, Err(reason)) => Err(reason.clone()),
            (None, Ok(())) => Err("it is not probed".to_owned()),
        }
    }

    /// Whether the function may be probed in this way.
    ///
    /// # Errors
    /// The reason why not.
    pub fn allows(&self, how: ProbeKind) -> Result<(), String> {
        if how == ProbeKind::Fentry { self.fentry.clone() } else { Ok(()) }
    }

    /// The probe, if the function is probed in this way. A function that can block gets no
    /// kretprobe: the kernel has only a few return slots for each function.
    #[must_use]
    pub const fn probe(&self, function: Function, how: ProbeKind) -> Probe {
        let leaves = !(function.row().waits && matches!(how, ProbeKind::Kprobe));
        Probe { how, name: self.name, leaves }
    }
}

/// The caller's stages whose functions can be found on a kernel stack, because this kernel has them.
#[must_use]
pub fn stages_on_stacks(candidates: &Candidates) -> BTreeSet<Stage> {
    let has = |function| candidates.get(&function).is_some_and(Result::is_ok);
    let rows = STAGES.iter().filter(|row| row.side == Side::Parent);
    let own = rows.filter(|row| row.function.is_some_and(has)).map(|row| row.stage);
    // Every kernel has those.
    own.chain(WORKERS.iter().map(|(_, stage)| *stage)).collect()
}

/// The `wanted` functions without the busy ones, which cost the host more than a default trace may;
/// with `all` they are kept.
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
        assert_eq!(wrong.name, "mm_init", "a breakpoint needs no type information");

        let right = &["mm_struct", "task_struct", "user_namespace"];
        let right = of(Function::MmInit, &function("mm_init", right, true), 1).unwrap();
        assert_eq!((right.fentry, right.arity), (Ok(()), 3));
        let newer = function("mm_init", &["mm_struct", "task_struct"], true);
        assert_eq!(of(Function::MmInit, &newer, 1).unwrap().arity, 2);
    }

    #[test]
    fn a_name_that_several_functions_have_is_not_probed() {
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
    fn no_return_value_is_read_of_a_function_that_returns_nothing() {
        let btf = function("sched_cgroup_fork", &["task_struct", "kernel_clone_args"], false);
        assert_eq!(of(Function::SchedCgroupFork, &btf, 1).unwrap().arity, NO_RETURN);
    }

    #[test]
    fn busy_functions_are_probed_only_with_all_stages() {
        let all: BTreeSet<_> = FUNCTIONS.iter().map(|row| row.function).collect();
        assert_eq!(affordable(&all, true), all);
        let default = affordable(&all, false);
        assert!(!default.contains(&Function::PutPid) && default.contains(&Function::CopyPageRange));
    }
}
