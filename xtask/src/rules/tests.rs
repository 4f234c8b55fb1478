//! Each rule meets a small tree with one breach planted in it, and the same tree without it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    breach::{Breach, Rule},
    check,
    checks::allows,
    rooms::{ALL, HOUSES, Room},
};

/// A tree of paths and texts.
fn tree(files: &[(&str, &str)]) -> BTreeMap<PathBuf, String> {
    files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect()
}

/// Expects nothing to be found.
fn clean(files: &[(&str, &str)]) {
    assert_eq!(check(&tree(files)), []);
}

/// Expects one breach of this rule at this place, and returns it.
fn one(files: &[(&str, &str)], path: &str, line: usize, rule: Rule) -> Breach {
    let mut found = check(&tree(files));
    assert_eq!(found.len(), 1, "{found:#?}");
    let breach = found.remove(0);
    assert_eq!((breach.path.as_path(), breach.line, breach.rule), (Path::new(path), line, rule));
    breach
}

/// The lines of the breaches of this rule in one file.
fn lines(path: &str, text: &str, rule: Rule) -> Vec<usize> {
    let found = check(&tree(&[(path, text)]));
    found.iter().filter(|breach| breach.rule == rule).map(|breach| breach.line).collect()
}

#[test]
fn a_breach_is_one_line() {
    let breach = one(
        &[("fork-trace/src/plan/mod.rs", "\nuse aya::Ebpf;")],
        "fork-trace/src/plan/mod.rs",
        2,
        Rule::Crates,
    );
    assert_eq!(
        breach.to_string(),
        "fork-trace/src/plan/mod.rs:2: crates: `aya::Ebpf` is named outside fork-trace/src/bpf. \
         Cure: Move this into bpf/, and return a type of our own from there."
    );
}

#[test]
fn what_is_no_rust_is_found() {
    let breach =
        one(&[("xtask/src/a.rs", "fn a() {}\nfn b( {}")], "xtask/src/a.rs", 2, Rule::Syntax);
    assert!(breach.cure.contains("cargo check"));
}

/// A tree with one import, by the room `assemble`.
fn assemble_imports(text: &str) -> Vec<(&str, &str)> {
    vec![
        ("fork-trace/src/lib.rs", "pub mod assemble; pub mod live; pub mod plan;"),
        ("fork-trace/src/assemble/mod.rs", "mod join;"),
        ("fork-trace/src/assemble/join.rs", text),
        ("fork-trace/src/live/mod.rs", "pub struct Loop; pub mod deep;"),
        ("fork-trace/src/live/deep.rs", ""),
        ("fork-trace/src/plan/mod.rs", ""),
    ]
}

#[test]
fn an_import_against_the_table_of_rooms_is_found() {
    let join = "fork-trace/src/assemble/join.rs";
    let breach = one(
        &assemble_imports("use crate::plan::Plan;\n\nuse crate::{\n    live::Loop,\n};"),
        join,
        4,
        Rule::Rooms,
    );
    assert_eq!(
        breach.what,
        "The room `assemble` imports `crate::live::Loop` from the room `live`; it may import only \
         plan, event, error."
    );
    assert!(breach.cure.starts_with("Keep assemble/ pure"), "{}", breach.cure);

    for text in [
        "fn f() -> crate::live::Loop { todo!() }",
        "fn f() { let _ = matches!(1, crate::live::X); }",
        "use super::super::live::deep::{self as d};",
        "#[derive(crate::live::Macro)] struct A;",
        "macro_rules! m { () => { $crate::live::X }; }",
        "mod inner { use super::super::super::live::*; }",
    ] {
        one(&assemble_imports(text), join, 1, Rule::Rooms);
    }
    clean(&assemble_imports("use crate::plan::Plan;"));
    clean(&assemble_imports("use super::Join; // crate::live::Loop"));
    clean(&assemble_imports("/// See [`crate::live::Loop`].\npub(in crate::live) struct A;"));
}

#[test]
fn tests_import_what_they_want() {
    let text = "#[cfg(test)] use crate::live::A;
        #[cfg(all(test, unix))] mod tests { use crate::live::Loop; }
        impl A { #[cfg(test)] fn a() { crate::live::f() } }";
    clean(&assemble_imports(text));
    one(
        &assemble_imports("#[cfg(not(test))] use crate::live::A;"),
        "fork-trace/src/assemble/join.rs",
        1,
        Rule::Rooms,
    );
    let mut files = assemble_imports("#[cfg(test)] mod golden; #[cfg(test)] mod tests;");
    files.push(("fork-trace/src/assemble/join/golden.rs", "use crate::live::Loop;"));
    files.push(("fork-trace/src/assemble/join/golden/more.rs", "use crate::live::Loop;"));
    files.push(("fork-trace/src/assemble/join/tests.rs", "use crate::live::Loop;"));
    clean(&files);
}

#[test]
fn a_file_in_no_room_is_found() {
    let breach = one(&[("fork-trace/src/odd.rs", "")], "fork-trace/src/odd.rs", 1, Rule::Rooms);
    assert!(breach.cure.contains("xtask/src/rules/rooms.rs"));
    clean(&[("fork-trace/src/error.rs", ""), ("fork-trace-ebpf/src/current.rs", "")]);
}

#[test]
fn rooms_of_the_kernel_side_are_kept_apart() {
    let files = |text| {
        [
            ("fork-trace-ebpf/src/main.rs", "mod attempt; mod kernel;"),
            ("fork-trace-ebpf/src/attempt/mod.rs", "use crate::kernel::Task;"),
            ("fork-trace-ebpf/src/kernel/mod.rs", ""),
            ("fork-trace-ebpf/src/kernel/groups.rs", text),
            ("fork-trace-ebpf/src/current.rs", ""),
        ]
    };
    let groups = "fork-trace-ebpf/src/kernel/groups.rs";
    one(&files("use crate::attempt::begin;"), groups, 1, Rule::Rooms);
    clean(&files("use crate::current::id;"));
}

#[test]
fn the_table_of_rooms_names_only_rooms() {
    for house in &HOUSES {
        for room in house.rooms {
            for entry in room.may.iter().filter(|entry| **entry != ALL) {
                let named = entry.split("::").next();
                assert!(house.rooms.iter().any(|room| Some(room.name) == named), "{entry}");
            }
        }
    }
}

#[test]
fn a_row_may_name_a_single_file_of_a_room() {
    let room = Room { name: "plan", may: &["event", "host::limits"], cure: "" };
    let may = |path: &str| allows(&room, &path.split("::").map(str::to_owned).collect::<Vec<_>>());
    assert!(may("event") && may("event::fork") && may("host::limits") && may("host::limits::pids"));
    assert!(!may("host") && !may("host::features") && !may("host::limits_of") && !may("cli"));
}

#[test]
fn an_import_circle_is_found() {
    let files = |last: &'static str| {
        [
            ("xtask/src/main.rs", "mod a;\nmod b;\nfn main() { a::run() }"),
            ("xtask/src/a/mod.rs", "mod c;\n\nuse crate::b::X;"),
            ("xtask/src/a/c.rs", last),
            ("xtask/src/b.rs", "// first\nfn f() {\n    crate::a::c::g();\n}"),
        ]
    };
    let breach = one(&files("\nuse super::Y;"), "xtask/src/a/c.rs", 2, Rule::Circles);
    assert_eq!(
        breach.what,
        "The imports of 3 files of xtask/src go in a circle: \
         a/c.rs:2 -> a/mod.rs:3 -> b.rs:3 -> a/c.rs."
    );
    assert!(breach.cure.starts_with("Cut one arrow"), "{}", breach.cure);
    clean(&files("use std::fmt;"));
    clean(&files("#[cfg(test)] mod tests { use super::super::Y; }"));
}

#[test]
fn every_form_of_import_closes_a_circle() {
    for text in [
        "use crate::Y;",
        "pub use super::Y as Z;",
        "use crate::{self as root};",
        "fn f(y: &super::Y) {}",
        "fn f() { println!(\"{}\", crate::Y) }",
        "use crate::b; fn f() { b::c::g() }",
        "use crate::b as other; fn f() { other::c::g() }",
    ] {
        let files = [
            ("xtask/src/main.rs", "mod a; mod b; pub use self::a::Y;"),
            ("xtask/src/a.rs", text),
            ("xtask/src/b/mod.rs", "mod c;"),
            ("xtask/src/b/c.rs", "use crate::a::Y;"),
        ];
        let found = check(&tree(&files));
        assert_eq!(found.len(), 1, "{text}: {found:#?}");
        assert_eq!(found.first().map(|breach| breach.rule), Some(Rule::Circles), "{text}");
    }
    // A module that is only declared is no import, and neither is what a room shows to others.
    clean(&[
        ("xtask/src/main.rs", "mod a; mod b; fn main() {}"),
        ("xtask/src/a.rs", "use super::Y; pub(super) struct A; pub(in crate::b) struct B;"),
        ("xtask/src/b.rs", "use crate::a::A;"),
    ]);
}

#[test]
fn circles_are_found_in_every_crate() {
    for folder in [
        "fork-trace/src",
        "fork-trace-ebpf/src",
        "fork-trace-common/src",
        "fork-trace/examples/forker",
        "fork-trace/tests/live",
    ] {
        let path = |name: &str| PathBuf::from(folder).join(name);
        let files = BTreeMap::from([
            (path("main.rs"), "mod filter; mod maps;".to_owned()),
            (path("filter.rs"), "use crate::maps::A;".to_owned()),
            (path("maps.rs"), "use crate::filter::B;".to_owned()),
        ]);
        let found = check(&files);
        assert!(found.iter().any(|breach| breach.rule == Rule::Circles), "{folder}: {found:#?}");
    }
}

#[test]
fn circles_that_share_no_import_are_all_found() {
    let found = check(&tree(&[
        ("xtask/src/main.rs", ""),
        ("xtask/src/a.rs", "use crate::{b::B, c::C};"),
        ("xtask/src/b.rs", "use crate::a::A;"),
        ("xtask/src/c.rs", "use crate::a::A;"),
    ]));
    assert_eq!(found.len(), 2, "{found:#?}");
}

#[test]
fn the_program_beside_a_library_is_a_crate_of_its_own() {
    clean(&[
        ("fork-trace/src/lib.rs", "pub mod cli;"),
        ("fork-trace/src/main.rs", "use fork_trace::cli; fn main() { cli::run() }"),
        ("fork-trace/src/cli/mod.rs", ""),
    ]);
}

#[test]
fn a_crate_of_one_room_is_found_outside_it() {
    let text = "fn a() {}\nfn b() -> aya::Ebpf { todo!() }\nuse {::aya_log::EbpfLogger as L};\n\
                fn c() { format!(\"{}\", aya::X) }\nfn d() { x.aya() }\nconst E: &str = \"aya\";";
    assert_eq!(lines("fork-trace/src/plan/a.rs", text, Rule::Crates), [2, 3, 4]);
    assert_eq!(lines("fork-trace/src/error.rs", text, Rule::Crates), [2, 3, 4]);
    assert_eq!(lines("fork-trace/src/bpf/a.rs", text, Rule::Crates), [0; 0]);
    assert_eq!(lines("fork-trace/tests/object.rs", text, Rule::Crates), [0; 0]);
}

#[test]
fn clap_is_found_outside_cli() {
    let text = "\n#[derive(clap::Args)]\nstruct A;";
    let host = "fork-trace/src/host/a.rs";
    let breach = one(&[(host, text)], host, 2, Rule::Crates);
    assert!(breach.cure.contains("cli/"));
    clean(&[("fork-trace/src/cli/a.rs", text), ("xtask/src/a.rs", text)]);
}

#[test]
fn a_path_of_the_kernel_is_found_outside_host() {
    let text = "/// Of /proc\nfn a() {\n read(\"/proc/self/status\");\n format!(\"/sys{x}\");\n \
                Path::new(\"/sys\");\n hint(\"/proc/sys/kernel/pid_max is low\");\n b\"/proc\";\n \
                hint(\"raise /sys/fs\"); x(\"/system\");\n}";
    let plan = "fork-trace/src/plan/a.rs";
    assert_eq!(lines(plan, text, Rule::KernelFiles), [3, 5, 7]);
    clean(&[("fork-trace/src/host/a.rs", text), ("xtask/src/a.rs", text)]);
    let breach = one(&[(plan, "const A: &str = \"/proc/stat\";")], plan, 1, Rule::KernelFiles);
    assert_eq!(breach.cure, "Read the file in host/, and pass on what was read.");
}

#[test]
fn standard_output_is_found_outside_output_and_cli() {
    let text = "use std::io::{self, stdout};\nfn a() {\n println!();\n print!(\"\");\n \
                stdout().lock();\n io::stdout();\n command.stdout(pipe());\n eprintln!();\n \
                output.stdout;\n std::print!();\n}\nfn stdout() {}";
    let live = "fork-trace/src/live/a.rs";
    assert_eq!(lines(live, text, Rule::Stdout), [1, 3, 4, 5, 6, 10]);
    for path in ["fork-trace/src/output/a.rs", "fork-trace/src/cli/mod.rs", "xtask/src/main.rs"] {
        assert_eq!(lines(path, text, Rule::Stdout), [0; 0]);
    }
    let breach = one(&[(live, "fn a() { println!() }")], live, 1, Rule::Stdout);
    assert!(breach.cure.contains("output/"));
}

#[test]
fn a_kernel_name_is_found_outside_the_tables() {
    let text = "fn a() {\n x(\"copy_process\");\n x(c\"_do_fork\");\n x(\"fork\");\n \
                x(\"copy_process failed\");\n}\n#[cfg(test)]\nmod tests { const A: &str = \"mmput\"; }";
    for path in ["fork-trace/src/plan/a.rs", "fork-trace-common/src/record.rs"] {
        assert_eq!(lines(path, text, Rule::KernelNames), [2, 3]);
    }
    for path in [
        "fork-trace-common/src/stage.rs",
        "fork-trace-common/src/function.rs",
        "fork-trace/src/cause/rules.rs",
        "fork-trace/src/cause/limits/pids.rs",
        "fork-trace/tests/golden.rs",
    ] {
        assert_eq!(lines(path, text, Rule::KernelNames), [0; 0]);
    }
    let host = "fork-trace/src/host/a.rs";
    let breach = one(&[(host, "const A: &str = \"dup_fd\";")], host, 1, Rule::KernelNames);
    assert!(breach.cure.contains("Function::X.row()"));
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let of = |lines: usize| "const A: u8 = 0;\n".repeat(lines);
    let tests = format!("\n#[cfg(test)]\nmod tests {{\n{}}}\n", of(100));
    let path = "xtask/src/a.rs";
    let breach = one(&[(path, &(of(451) + &tests))], path, 451, Rule::Length);
    assert!(breach.what.contains("451 lines"), "{}", breach.what);
    clean(&[
        (path, &(of(450) + &tests)),
        (path, &of(450)),
        ("fork-trace-common/src/stage.rs", &of(500)),
        ("fork-trace/tests/live/ftrace.rs", &of(500)),
    ]);
}
