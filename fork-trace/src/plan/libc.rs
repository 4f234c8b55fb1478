//! What can be seen of the stages in the C library.

use std::collections::BTreeSet;

use fork_trace_common::{
    libc::{FUNCTIONS, LibcFunction, Part, Role},
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
        name: name.clone(),
        precision: Precision::Missing,
        source: None,
        opens: None,
        closes: None,
        includes: Vec::new(),
        reason: Some(reason),
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
    let seen = |opens: &str, closes: &str, precision| Coverage {
        name: name.clone(),
        precision,
        source: Some(Source::Uprobe),
        opens: Some(Name::Owned(opens.to_owned())),
        closes: Some(Name::Owned(closes.to_owned())),
        includes: Vec::new(),
        reason: None,
    };
    let symbol =
        |function: LibcFunction| function.row().symbols.first().copied().unwrap_or_default();
    let of_stage = functions(row.stage);
    if let Some(function) = of_stage.iter().find(|function| probed.functions.contains(function)) {
        let symbol = symbol(*function);
        return seen(&format!("enter {symbol}"), &format!("leave {symbol}"), Precision::Exact);
    }
    match row.stage {
        Stage::ChildFork => seen("sys_exit of the child", "leave fork", Precision::Exact),
        Stage::ChildSetup => {
            let parts = [Stage::ChildMallocUnlock, Stage::ChildStdioReset, Stage::ChildHandlers];
            let first = parts.into_iter().flat_map(functions);
            match first.into_iter().find(|function| probed.functions.contains(function)) {
                Some(function) => seen(
                    "sys_exit of the child",
                    &format!("enter {}", symbol(function)),
                    Precision::Bounded,
                ),
                None => missing(no_symbol(probed)),
            }
        }
        // They are inlined, or they are no functions.
        Stage::PopenLock | Stage::ChildLoaderReset | Stage::ChildReclaimStacks => {
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
fn functions(stage: Stage) -> BTreeSet<LibcFunction> {
    let is_part = |part: Part| [false, true].map(|child| part.stage(child)).contains(&Some(stage));
    let in_child = |function: LibcFunction| {
        matches!(
            function,
            LibcFunction::MallocUnlockChild | LibcFunction::StdioReset | LibcFunction::NssChild
        )
    };
    let in_caller = |function: LibcFunction| {
        matches!(function, LibcFunction::MallocUnlock | LibcFunction::StdioUnlock)
    };
    let is_child_stage = matches!(
        stage,
        Stage::ChildMallocUnlock | Stage::ChildStdioReset | Stage::ChildNss | Stage::ChildHandlers
    );
    let is_of = |role: Role| match role {
        Role::Wrapper | Role::EntryOnly => false,
        Role::Both(part) | Role::Part(part) => is_part(part),
        Role::Around(before, after) => is_part(before) || is_part(after),
    };
    FUNCTIONS
        .iter()
        .filter(|row| match stage {
            Stage::LibcFork => row.function == LibcFunction::Fork,
            _ => is_of(row.role),
        })
        .map(|row| row.function)
        .filter(
            |function| if is_child_stage { !in_caller(*function) } else { !in_child(*function) },
        )
        .collect()
}
