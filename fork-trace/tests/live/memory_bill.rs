//! The memory bill: what was resident and what of it was copied, against `/proc` of parent and child.

use std::process::Command;

use serde_json::Value;

use crate::support::{Folder, fork_trace, forker, live_test, of_type, run, tool, trace};

/// A fork of `forker memory`: what the tool showed, its bill as text, and what `/proc` said of the
/// parent and the child.
struct Bill {
    fork: Value,
    text: String,
    parent: Value,
    child: Value,
}

fn bill(kind: &str, amount: u64) -> Bill {
    let amount = amount.to_string();
    let args = ["memory", "--kind", kind, "--amount", &amount];
    let traced = trace(&mut fork_trace(), Command::new(forker()).args(args));
    let [fork] = of_type(&traced.shown, "fork")[..] else { panic!("{:?}", traced.shown) };
    let folder = Folder::new("bill");
    let file = folder.file("forks.json");
    let lines: Vec<String> = traced.shown.iter().map(Value::to_string).collect();
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    let output = run(tool().args(["replay", "--stages"]).arg(&file));
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("memory: "));
    let truth = traced.truth();
    let of = |who| of_type(&truth, who)[0].clone();
    let (parent, child) = (of("parent"), of("child"));
    Bill { fork: fork.clone(), text: line.unwrap_or_default().to_owned(), parent, child }
}

fn kib(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} of {value}"))
}

/// What `forker` itself needs, what the child touches before it looks, and what the counts may be
/// off, in KiB.
fn slack(bill: &Bill) -> u64 {
    let error = |name: &str| bill.fork["memory"][name].as_u64().unwrap_or(0) * 3 * 4;
    4096 + error("rss_error_pages") + error("copied_rss_error_pages")
}

/// The counts agree with `/proc`.
fn agrees(bill: &Bill) {
    let pages = |name: &str| kib(&bill.fork["memory"], name) * 4;
    let near = |shown: u64, truth: u64, what: &str| {
        let slack = slack(bill);
        assert!(shown.abs_diff(truth) <= slack, "{what}: {shown} KiB, {truth} KiB: {}", bill.fork);
    };
    near(pages("rss_pages"), kib(&bill.parent, "rss_kib"), "resident");
    near(pages("anon_pages"), kib(&bill.parent, "anonymous_kib"), "anonymous");
    near(pages("copied_anon_pages"), kib(&bill.child, "anonymous_kib"), "copied, anonymous");
    // The child has the same tables, and a few more for what it touched since.
    let tables = kib(&bill.fork["memory"], "copied_page_table_bytes") / 1024;
    let child = kib(&bill.child, "page_tables_kib");
    assert!(tables <= child && child - tables <= 64, "{tables} KiB, {child} KiB: {}", bill.fork);
    // The list of mappings has one more: the page of the vsyscall.
    let mappings = kib(&bill.fork["memory"], "copied_vmas");
    assert!(mappings.abs_diff(kib(&bill.child, "mappings")) <= 3, "{}", bill.fork);
}

#[test]
fn what_was_copied_is_what_the_child_has() {
    live_test!();
    for kind in ["private", "shared", "dontfork", "wipeonfork", "huge"] {
        let bill = bill(kind, 256);
        agrees(&bill);
        let copied = kib(&bill.fork["memory"], "copied_rss_pages") * 4;
        println!("{kind}: {}", bill.text);
        let reason = match kind {
            "shared" => Some("shared"),
            "dontfork" => Some("MADV_DONTFORK"),
            "wipeonfork" => Some("MADV_WIPEONFORK"),
            _ => None,
        };
        if let Some(reason) = reason {
            assert!(copied < slack(&bill), "{}", bill.fork);
            let said = bill.text.contains(&format!("nothing of it copied: {reason}, "));
            assert!(said || copied * 100 >= kib(&bill.parent, "rss_kib"), "{}", bill.text);
            assert!(!bill.text.contains("/GiB"), "nothing was paid for: {}", bill.text);
        } else {
            assert!(copied >= 256 << 10, "{}", bill.fork);
            // 8 bytes a page; of a huge page, a table that is kept for when it is split.
            assert!(
                kib(&bill.fork["memory"], "copied_page_table_bytes") >= 256 * 2048,
                "{}",
                bill.fork
            );
            assert!(!bill.text.contains("of it copied"), "all of it: {}", bill.text);
        }
        assert!(!bill.text.contains("huge"), "nothing shows that: {}", bill.text);
    }
}

#[test]
fn what_drove_the_time_is_told() {
    live_test!();
    for (kind, amount, driver) in [
        ("private", 512, "pages"),
        ("mappings", 20_000, "mappings"),
        ("sparse", 8192, "page tables"),
    ] {
        let bill = bill(kind, amount);
        println!("{kind}: {}", bill.text);
        agrees(&bill);
        // Fork's own tracepoints alone do not tell how long the copying took.
        let stages = bill.fork["stages"].as_array().unwrap();
        let timed = stages.iter().any(|stage| stage["name"] == "copy_mm");
        let said = format!("mostly for its {driver}");
        assert_eq!(bill.text.ends_with(&said), timed, "{kind}: {}", bill.text);
    }
}
