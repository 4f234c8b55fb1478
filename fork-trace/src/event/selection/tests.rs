use super::*;
use crate::event::tests::{done, fork};

fn filters(json: &str) -> Filters {
    serde_json::from_str(json).unwrap()
}

fn event(json: &str) -> Event {
    serde_json::from_str(json).unwrap()
}

/// An attempt of process `pid` with this parent, name and child.
fn by(id: &str, (ppid, pid): (u32, u32), child: Option<u32>, more: &str) -> Event {
    let child =
        child.map_or(String::new(), |pid| format!(r#","child":{{"pid":{pid},"tid":{pid}}}"#));
    Event::Fork(fork(
        id,
        &format!(
            r#","kind":"process","syscall":"clone","total_ns":10,"parent":{{"pid":{pid},"tid":{pid},"ppid":{ppid},
            "comm":"a","uid":0{more}}}{child}"#
        ),
    ))
}

fn exec(fork_id: &str, orphan: bool) -> Event {
    let orphan = if orphan { r#","orphan":true"# } else { "" };
    event(&format!(
        r#"{{"type":"exec","fork_id":"{fork_id}","ts":"2026-01-01T00:00:00Z","mono_ns":1,"pid":2,
        "after_ns":1{orphan}}}"#
    ))
}

fn exit(fork_id: &str, pid: u32, mono_ns: u64) -> Event {
    event(&format!(
        r#"{{"type":"exit","fork_id":"{fork_id}","ts":"2026-01-01T00:00:00Z","mono_ns":{mono_ns},
        "pid":{pid},"lifetime_ns":1,"execed":false}}"#
    ))
}

fn stuck(fork_id: &str, pid: u32, for_ns: u64) -> Event {
    event(&format!(
        r#"{{"type":"stuck","fork_id":"{fork_id}","mono_ns":1,"for_ns":{for_ns},"state":"blocked",
        "parent":{{"pid":{pid},"tid":{pid},"comm":"a"}}}}"#
    ))
}

/// Whether each of these is shown by these filters.
fn shown(json: &str, events: &[Event]) -> Vec<bool> {
    let mut selection = Selection::new(filters(json), None);
    events.iter().map(|event| selection.shows(event).unwrap()).collect()
}

#[test]
fn each_filter_lets_through_what_it_names() {
    let forks = [
        by("1-1", (1, 10), Some(11), r#","user":"root","cgroup":"/a/b""#),
        Event::Fork(fork(
            "2-1",
            r#","kind":"thread","held_ns":5000,"child":{"pid":20,"tid":21},"parent":{"pid":20,
            "tid":22,"ppid":10,"comm":"b\\xff","uid":1000,"user":"ann","cgroup":"/a/bc"}"#,
        )),
        Event::Fork(fork("3-1", r#","errno":11,"errno_name":"EAGAIN","held_ns":50"#)),
    ];
    for (json, wanted) in [
        ("{}", [true, true, true]),
        (r#"{"pids":[10,1]}"#, [true, false, true]),
        (r#"{"ppids":[10]}"#, [false, true, false]),
        (r#"{"users":["ann"]}"#, [false, true, false]),
        (r#"{"users":["0"]}"#, [true, false, true]),
        (r#"{"users":["0","ann"]}"#, [true, true, true]),
        (r#"{"users":["root"]}"#, [true, false, false]),
        (r#"{"comms":["b\\xff"]}"#, [false, true, false]),
        (r#"{"cgroups":["/a/b"]}"#, [true, false, false]),
        (r#"{"cgroups":["/a/"]}"#, [true, true, false]),
        (r#"{"cgroups":["/"]}"#, [true, true, false]),
        (r#"{"kinds":["thread","kthread"]}"#, [false, true, false]),
        (r#"{"failed":true}"#, [false, false, true]),
        (r#"{"errnos":["12"]}"#, [false, false, false]),
        (r#"{"min_duration_ns":60}"#, [true, true, false]),
        (r#"{"min_duration_ns":50}"#, [true, true, true]),
        (r#"{"users":["ann"],"comms":["a"]}"#, [false, false, false]),
    ] {
        assert_eq!(shown(json, &forks), wanted, "{json}");
    }
}

#[test]
fn descendants_are_known_by_their_forks_or_by_their_parents() {
    let events = [
        by("1", (1, 10), Some(11), ""),
        by("2", (10, 11), Some(12), r#","start_ns":105"#),
        // Its own fork was not recorded.
        by("3", (11, 30), Some(31), r#","start_ns":150"#),
        by("4", (30, 31), None, ""),
        by("5", (1, 40), Some(41), ""),
        by("6", (40, 41), None, ""),
    ];
    let of = |json| shown(json, &events);
    assert_eq!(of(r#"{"pids":[10],"follow":true}"#), [true, true, true, true, false, false]);
    assert_eq!(of(r#"{"pids":[10]}"#), [true, false, false, false, false, false]);
    assert_eq!(of(r#"{"pids":[30],"follow":true}"#), [false, false, true, true, false, false]);
}

#[test]
fn a_process_id_that_was_given_again_is_another_process() {
    let events = [
        // Process 11 is made between 100 and 110, and ends at 500.
        by("1", (1, 10), Some(11), ""),
        exit("1", 11, 500),
        by("2", (99, 11), None, r#","start_ns":900"#),
        by("3", (99, 11), None, r#","start_ns":104"#),
        // A child of the other process 11.
        by("4", (11, 50), None, r#","start_ns":950"#),
        by("5", (11, 51), None, r#","start_ns":400"#),
    ];
    let shown = shown(r#"{"pids":[10],"follow":true}"#, &events);
    assert_eq!(shown, [true, true, false, true, false, true]);
}

#[test]
fn what_became_of_a_child_follows_its_fork() {
    let events = [
        by("1", (1, 10), Some(11), ""),
        by("2", (1, 20), Some(21), ""),
        done("1", 5),
        done("2", 5),
        exec("2", false),
        exec("1", false),
        exec("3", true),
        exit("1", 11, 5),
        exec("1", false),
        event(r#"{"type":"exec","ts":"2026-01-01T00:00:00Z","mono_ns":1,"pid":2,"after_ns":1}"#),
    ];
    let wanted = [true, false, true, false, false, true, false, true, false, true];
    assert_eq!(shown(r#"{"pids":[10]}"#, &events), wanted);
    assert!(shown("{}", &events)[6], "nothing is left out without a filter");
}

#[test]
fn a_stuck_attempt_is_told_before_it_is_shown_or_at_the_end() {
    let mut selection = Selection::new(filters(r#"{"pids":[10]}"#), None);
    for (id, pid) in [("1", 10), ("2", 20), ("3", 10), ("4", 20)] {
        assert!(!selection.shows(&stuck(id, pid, 1_000)).unwrap(), "its end decides");
    }
    assert!(selection.shows(&by("1", (1, 10), None, "")).unwrap());
    assert_eq!(selection.take_stuck("1").len(), 1);
    assert!(!selection.shows(&by("2", (1, 20), None, "")).unwrap());
    assert_eq!(selection.take_stuck("2").len(), 0);
    let ids =
        |stuck: Vec<Stuck>| stuck.into_iter().filter_map(|stuck| stuck.fork_id).collect::<Vec<_>>();
    assert_eq!(ids(selection.take_all_stuck()), ["3"]);
    // It does not say who its user is.
    for (json, count) in [(r#"{"users":["0"]}"#, 0), (r#"{"comms":["a"]}"#, 1)] {
        let mut selection = Selection::new(filters(json), None);
        selection.shows(&stuck("1", 10, 1_000)).unwrap();
        assert_eq!(selection.take_all_stuck().len(), count, "{json}");
    }
}

#[test]
fn the_first_ones_are_shown_and_the_others_counted() {
    let mut selection = Selection::new(Filters::default(), Some(2));
    let shown: Vec<_> = (0..4)
        .map(|number| by(&number.to_string(), (1, 10), Some(11 + number), ""))
        .map(|event| selection.shows(&event).unwrap())
        .collect();
    assert_eq!((shown, selection.left_out()), (vec![true, true, false, false], 2));
}

#[test]
fn stages_are_selected_with_their_attempt_and_say_what_they_do_not_tell() {
    let stage = |fork_id: &str, pid: u32, more: &str| {
        event(&format!(
            r#"{{"type":"stage","fork_id":"{fork_id}","ts":"2026-01-01T00:00:00Z","mono_ns":1,
            "parent":{{"pid":{pid},"tid":{pid},"comm":"a"}},"kind":"process",
            "name":"copy_mm"{more}}}"#
        ))
    };
    let events = [
        stage("1", 10, r#","child_tid":11"#),
        stage("1", 10, r#","child_tid":11"#),
        stage("2", 11, ""),
        stage("2", 11, r#","errno":11"#),
        stage("3", 20, r#","child_tid":21"#),
    ];
    let of = |json| shown(json, &events);
    assert_eq!(of(r#"{"pids":[10]}"#), [true, true, false, false, false]);
    assert_eq!(of(r#"{"pids":[10],"follow":true}"#), [true, true, true, true, false]);
    assert_eq!(of(r#"{"failed":true}"#), [false, false, true, true, false]);
    assert_eq!(of(r#"{"errnos":["EAGAIN"]}"#), [false, false, false, true, false]);
    assert_eq!(of(r#"{"kinds":["thread"]}"#), [false; 5]);
    for (json, option) in [
        (r#"{"ppids":[1]}"#, "-P: "),
        (r#"{"users":["0"]}"#, "-u: "),
        (r#"{"cgroups":["/"]}"#, "--cgroup: "),
        (r#"{"min_duration_ns":1}"#, "--min-duration: "),
    ] {
        let error = Selection::new(filters(json), None).shows(&events[0]).unwrap_err();
        assert!(error.to_string().starts_with(option), "{error}");
        assert_eq!(error.exit_status(), 2);
    }
    let mut selection = Selection::new(filters(r#"{"pids":[10]}"#), None);
    events.iter().for_each(|event| _ = selection.shows(event).unwrap());
    assert_eq!(selection.left_out(), 1);
}

#[test]
fn what_is_remembered_is_bounded_and_the_rest_counted() {
    let mut selection = Selection::new(Filters::default(), None);
    for number in 0..MOST_SHOWN + 3 {
        selection.show(&number.to_string(), true);
    }
    assert_eq!(selection.shown.len(), MOST_SHOWN);
    let lost: Vec<_> = selection.lost(4).collect();
    assert_eq!(lost, [(Name::Borrowed("children_full"), 7)]);
    for number in 0..MOST_STUCK {
        assert!(!selection.shows(&stuck(&number.to_string(), 1, 1)).unwrap());
    }
    assert!(selection.shows(&stuck("x", 1, 1)).unwrap(), "it is told as it is");
}
