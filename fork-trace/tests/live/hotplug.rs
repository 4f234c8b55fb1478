//! A CPU that goes away while forks are traced, and comes back.
//!
//! Only a machine that is made to be thrown away is treated like that: a guest of `cargo xtask vm`, which
//! says that it is emulated, or one with `FORK_TRACE_THROWAWAY` in its environment.

use std::{env, fs, process::Command, thread::sleep, time::Duration};

use crate::support::{
    Background, FileTrace, accounted, forker, live_test, number, of_type, skip, slowness, summary,
};

/// Whether CPU 1 is there for forks.
const ONLINE: &str = "/sys/devices/system/cpu/cpu1/online";

/// A CPU that is offline until this is dropped, so that it comes back also where a test fails.
struct Offline;

impl Offline {
    fn new() -> Self {
        fs::write(ONLINE, "0").unwrap();
        Self
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        fs::write(ONLINE, "1").unwrap();
    }
}

#[test]
fn a_cpu_that_goes_and_comes_back_loses_nothing() {
    live_test!();
    if !fs::read_to_string(ONLINE).is_ok_and(|online| online.trim() == "1") {
        skip!("there is no CPU 1 that can be taken offline");
    }
    let throwaway = ["FORK_TRACE_EMULATED", "FORK_TRACE_THROWAWAY"];
    if !throwaway.iter().any(|name| env::var_os(name).is_some()) {
        skip!("a CPU is taken offline only where FORK_TRACE_THROWAWAY is set");
    }
    let trace = FileTrace::start(&["--exit"]);
    let forks = || Background::start(Command::new(forker()).args(["loop", "--count", "1000000"]));
    let storms = [forks(), forks()];
    let callers = storms.each_ref().map(Background::pid);
    let while_it_goes = Duration::from_millis(200).mul_f64(slowness().sqrt());
    for _ in 0..3 {
        sleep(while_it_goes);
        let offline = Offline::new();
        sleep(while_it_goes);
        drop(offline);
    }
    sleep(while_it_goes);
    drop(storms);
    // What is left in the ring is shown before the stop, which has little time for it.
    sleep(Duration::from_secs(1).mul_f64(slowness().sqrt()));
    let shown = trace.stop();
    accounted(&shown);
    let summary = summary(&shown);
    assert_eq!(number(&summary["lost"]), 0, "{summary}");
    assert!(summary["lost_by"].is_null(), "{summary}");
    // There were forks from both CPUs, before and after.
    let forks = of_type(&shown, "fork");
    for caller in callers {
        let ours: Vec<_> = forks.iter().filter(|fork| fork["parent"]["pid"] == caller).collect();
        assert!(ours.len() > 10, "{} forks by {caller}", ours.len());
    }
    let on = |cpu: u64| forks.iter().filter(|fork| fork["child_start"]["cpu"] == cpu).count();
    assert!(on(0) > 0 && on(1) > 0, "{} children on CPU 0, {} on CPU 1", on(0), on(1));
}
