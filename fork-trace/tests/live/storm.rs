//! Many forks at once: nothing is lost, or every loss is counted.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    Background, FileTrace, Folder, accounted, check, fork_trace, forker, lines, live_test, number,
    of_type, read, run, slowness, summary,
};

#[test]
fn a_storm_of_forks_is_all_there() {
    live_test!();
    // An emulated CPU would take minutes.
    let count = if slowness() > 1.0 { 2_000 } else { 20_000 };
    let trace = FileTrace::start(&[]);
    let child =
        Command::new(forker()).args(["loop", "--count", &count.to_string()]).spawn().unwrap();
    let forker = child.id();
    assert!(child.wait_with_output().unwrap().status.success());
    let traced = trace.stop();
    let ours = of_type(&traced, "fork").iter().filter(|f| f["parent"]["pid"] == forker).count();
    assert_eq!(ours, count);
    assert_eq!(summary(&traced)["lost"], 0);
    accounted(&traced);
    for loss in of_type(&traced, "loss") {
        // A host may hide tasks of its own: what runs after them is not seen to come back.
        let by: Vec<_> = loss["by"].as_object().unwrap().keys().collect();
        assert_eq!(by, ["off_cpu_missed"], "{loss}");
    }
}

#[test]
fn a_ring_that_is_too_small_loses_and_says_how_many() {
    live_test!();
    let count = if slowness() > 1.0 { 1_000 } else { 3_000 };
    let folder = Folder::new("loss");
    let file = folder.file("forks.json");
    let output = run(fork_trace()
        .args(["--buffer", "4K", "--fail-on-loss", "-o"])
        .arg(&file)
        .arg("--")
        .arg(forker())
        .args(["loop", "--count", &count.to_string()]));
    assert_eq!(output.status.code(), Some(4));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("records were lost") && said.contains("--buffer"), "{said}");
    let traced = read(&file);
    check(&traced);
    let losses = of_type(&traced, "loss");
    let lost: u64 = losses.iter().map(|loss| number(&loss["records"])).sum();
    assert!(lost > 0);
    let summary = summary(&traced);
    assert_eq!(summary["lost"], lost);
    assert_eq!(number(&summary["attempts"]) + lost, count);
    assert_eq!(summary["accounted"], true, "{summary}");
    let by = |place| losses.iter().filter_map(|loss| loss["by"][place].as_u64()).sum::<u64>();
    assert_eq!(by("ring_full"), lost, "each loss line says what was lost since the one before");

    // What is lost first is what is worth least: the attempt itself is still there.
    let forks = of_type(&traced, "fork");
    let brief = forks.iter().filter(|fork| fork["brief"] == true);
    let brief: Vec<_> = brief.collect();
    assert_eq!(u64::try_from(brief.len()).unwrap(), by("brief"));
    assert!(!brief.is_empty());
    for fork in brief {
        assert!(["stages", "other_ns", "memory"].iter().all(|left| fork[left].is_null()), "{fork}");
        assert_eq!(fork["ret"], fork["child"]["pid"]);
        assert!(number(&fork["total_ns"]) > 0, "{fork}");
    }
}

#[test]
fn limits_stop_the_trace() {
    live_test!();
    let output = run(fork_trace()
        .args(["--json", "--max-events", "5", "--"])
        .arg(forker())
        .args(["loop", "--count", "500"]));
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout).unwrap().contains(r#""attempts":500"#),
        "the command is not cut short"
    );
    let traced = lines(&output.stderr);
    check(&traced);
    assert_eq!(of_type(&traced, "fork").len(), 5);
    accounted(&traced);

    let began = std::time::Instant::now();
    let output = run(fork_trace().args(["--json", "-q", "-D", "300ms"]));
    assert!(output.status.success());
    check(&lines(&output.stdout));
    assert!(output.stderr.is_empty());
    let took = began.elapsed();
    assert!(took.as_millis() >= 300 && took.as_secs_f64() < 10.0 * slowness(), "{took:?}");
}

#[test]
fn descendants_are_followed_and_others_are_not() {
    live_test!();
    let other = Background::start(Command::new(forker()).args(["loop", "--count", "1000000"]));
    let script = "(sh -c ': & : & wait') & wait; setsid sh -c ': & wait' & wait";
    let output = run(fork_trace().args(["--json", "--", "sh", "-c", script]));
    drop(other);
    assert!(output.status.success());
    let traced = lines(&output.stderr);
    check(&traced);
    let forks = of_type(&traced, "fork");
    // Each caller is the command or a child that was shown before.
    let mut known: Vec<&Value> = vec![&forks[0]["parent"]["pid"]];
    for fork in &forks {
        assert!(known.contains(&&fork["parent"]["pid"]), "{fork}");
        known.push(&fork["child"]["pid"]);
    }
    assert!(forks.len() >= 4, "{} forks", forks.len());
    assert!(number(&summary(&traced)["filtered"]) > 0, "the others' forks");
    accounted(&traced);
}
