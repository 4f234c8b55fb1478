//! What can be seen of the stages in the C library.

use fork_trace_common::{
    libc::{self, FUNCTIONS, LibcFunction, Part},
    stage::{Row, Stage},
};

use crate::{
    event::{
        span::{Precision, Source},
        start::Coverage,
        values::Name,
    },
    host::facts::ProbedLibraries,
};

/// What can be seen of one stage in the C library, or of the child's there.
pub(super) fn coverage(row: &Row, probed: Option<&ProbedLibraries>) -> Coverage {
    let name = Name::Borrowed(row.name);
    let missing = |reason: String| Coverage {
        reason: Some(reason),
        ..Coverage::new(name.clone(), Precision::Missing)
    };
    let Some(probed) = probed else {
        return missing("the C library is probed only with --libc".to_owned());
    };
    if probed.names.is_empty() {
        let reasons: Vec<_> =
            probed.refused.iter().map(|(name, reason)| format!("{name}: {reason}")).collect();
        let reasons =
            if reasons.is_empty() { "none was found".to_owned() } else { reasons.join("; ") };
        return missing(format!("no C library can be probed: {reasons}"));
    }
    let seen = |opens: String, closes: String, precision| Coverage {
        source: Some(Source::Uprobe),
        opens: Some(Name::Owned(opens)),
        closes: Some(Name::Owned(closes)),
        ..Coverage::new(name.clone(), precision)
    };
    let in_user_space = || "sys_exit of the child".to_owned();
    let probed_of = |stage| functions(stage).find(|function| probed.functions.contains(function));
    match (row.stage, probed_of(row.stage)) {
        (_, Some(function)) => {
            let symbol = function.name();
            seen(format!("enter {symbol}"), format!("leave {symbol}"), Precision::Exact)
        }
        (Stage::ChildFork, _) => seen(in_user_space(), "leave fork".to_owned(), Precision::Exact),
        (Stage::ChildSetup, _) => {
            let later = [Stage::ChildMallocUnlock, Stage::ChildStdioReset, Stage::ChildHandlers];
            match later.into_iter().find_map(probed_of) {
                Some(next) => {
                    seen(in_user_space(), format!("enter {}", next.name()), Precision::Bounded)
                }
                None => missing(no_symbol(probed)),
            }
        }
        // They are inlined, or they are no functions.
        (Stage::PopenLock | Stage::ChildLoaderReset | Stage::ChildReclaimStacks, _) => {
            missing(format!("no function of its own; its time falls into {}", parent(row)))
        }
        _ => missing(format!("{}; its time falls into {}", no_symbol(probed), parent(row))),
    }
}

fn parent(row: &Row) -> &'static str {
    row.parent.map_or("no stage", |parent| parent.row().name)
}

/// The reason why a function inside of a library cannot be probed.
fn no_symbol(probed: &ProbedLibraries) -> String {
    match &probed.stripped {
        Some(library) => format!(
            "{library} exports no such function: install its debug symbols (Debian and Ubuntu: \
             libc6-dbg, Fedora: glibc-debuginfo)"
        ),
        None => "the probed libraries have no such function".to_owned(),
    }
}

/// The functions of which one is the stage.
fn functions(stage: Stage) -> impl Iterator<Item = LibcFunction> {
    let part = Part::ALL.iter().find(move |part| part.stage() == stage);
    let is_of = move |row: &&libc::Row| match part {
        Some(part) => row.role.is(*part),
        None => stage == Stage::LibcFork && row.function == LibcFunction::Fork,
    };
    FUNCTIONS.iter().filter(is_of).map(|row| row.function)
}
