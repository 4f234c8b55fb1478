//! The committed eBPF object of this machine agrees with the tables: each tracepoint and each function has its
//! programs, each program belongs to one of them, and each setting has its global.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use fork_trace::host::{functions::ProbeKind, tracepoint::Tracepoint};
use fork_trace_common::{
    function::{ARITY, FUNCTIONS, FUNCTIONS_ON, Returns},
    settings::{FOLLOW_ONLY, OFFSETS},
    task_seen::{PROC_ABOVE, PROC_LEVEL, PROC_NS},
};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind, SymbolSection};

#[cfg(target_arch = "x86_64")]
const OBJECT: &[u8] = include_bytes!("../bpf/fork-trace.x86_64.bpf.o");
#[cfg(target_arch = "aarch64")]
const OBJECT: &[u8] = include_bytes!("../bpf/fork-trace.aarch64.bpf.o");

fn object() -> object::File<'static> {
    object::File::parse(OBJECT).unwrap()
}

/// The names of the object's global symbols of this kind.
fn names(kind: SymbolKind) -> BTreeSet<String> {
    let object = object();
    let named = object.symbols().filter(|symbol| symbol.kind() == kind && symbol.is_global());
    named.map(|symbol| symbol.name().unwrap().to_owned()).collect()
}

#[test]
fn each_tracepoint_has_its_program_and_each_program_its_tracepoint() {
    let planned: BTreeSet<String> =
        Tracepoint::ALL.iter().map(|tracepoint| tracepoint.name().to_owned()).collect();
    let object = object();
    let programs: BTreeSet<String> = object
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_global())
        .filter_map(|symbol| {
            let SymbolSection::Section(index) = symbol.section() else {
                return None;
            };
            let section = object.section_by_index(index).unwrap();
            let target = section.name().unwrap().strip_prefix("tp_btf/")?;
            assert_eq!(target, symbol.name().unwrap(), "program and tracepoint have one name");
            Some(target.to_owned())
        })
        .collect();
    assert_eq!(programs, planned);
    let sections: BTreeSet<String> = object
        .sections()
        .filter_map(|section| section.name().unwrap().strip_prefix("tp_btf/").map(str::to_owned))
        .collect();
    assert_eq!(sections, planned);
}

#[test]
fn each_function_has_its_four_programs_and_each_program_its_function() {
    let kinds = [ProbeKind::Fentry, ProbeKind::Kprobe].into_iter().flat_map(ProbeKind::programs);
    let planned: BTreeSet<String> = kinds
        .flat_map(|kind| FUNCTIONS.iter().map(move |row| format!("{kind}{}", row.id)))
        .collect();
    let kinds = ["fentry", "fexit", "kprobe", "kretprobe"];
    let mut programs = names(SymbolKind::Text);
    programs.retain(|name| kinds.iter().any(|kind| name.starts_with(kind)));
    let differ: Vec<_> = programs.symmetric_difference(&planned).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

#[test]
fn each_function_whose_return_value_is_read_has_its_arity_global() {
    let globals = names(SymbolKind::Data);
    assert!(globals.contains(FUNCTIONS_ON));
    for row in FUNCTIONS.iter().filter(|row| row.returns != Returns::Nothing) {
        assert!(globals.contains(&format!("{ARITY}{}", row.id)), "{}", row.id);
    }
}

#[test]
fn each_setting_has_its_global() {
    let globals = names(SymbolKind::Data);
    for offset in OFFSETS {
        assert!(globals.contains(offset.global), "{}", offset.global);
    }
    for setting in [FOLLOW_ONLY, PROC_LEVEL, PROC_NS, PROC_ABOVE] {
        assert!(globals.contains(setting), "{setting}");
    }
}

#[test]
fn the_iterator_over_tasks_is_there() {
    assert!(object().section_by_name("iter/task").is_some());
    assert!(names(SymbolKind::Text).contains("tasks"));
}

#[test]
fn the_license_permits_the_helpers_that_the_programs_call() {
    let object = object();
    let license = object.section_by_name("license").unwrap();
    assert_eq!(license.data().unwrap(), b"Dual MIT/GPL\0");
}
