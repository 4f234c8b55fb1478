//! What made an attempt slow: the verdict, from figures of the same attempt. Pure.
//!
//! Time off the CPU is never taken for work: what a stage worked is its own time without its waits.
//! Where no single wait or stage took a good part of the time, there is no verdict.

use fork_trace_common::stage::Stage;

use crate::{
    cause::reasons::{REASONS, Reason, UNKNOWN},
    event::{
        fork::Fork,
        memory::PAGE_BYTES,
        memory_cost::{LEAST_BYTES, per_gib},
        span::{Span, worked_ns},
        units::{count, duration, percent, size},
        values::Name,
        wait::{Keeper, Share, Slow, Wait, WaitState},
    },
};

/// What takes less than this share of the time does not explain it.
const LEAST: Share = Share(300);

/// Sets the verdict of an attempt that held its caller for [`Slow::FROM_NS`] or more.
pub fn add(fork: &mut Fork) {
    fork.slow = fork.took_ns().filter(|took_ns| *took_ns >= Slow::FROM_NS).and_then(|took_ns| {
        let waited = fork.longest_wait();
        let worked = longest_work(fork).filter(|_| fork.waits_incomplete.is_none());
        let wait_ns = waited.as_ref().map_or(0, |(_, ns)| *ns);
        // The waits that are told say more of a lock than its stage does, unless they are the lesser part.
        let work_ns = worked.map_or(0, |(span, ns)| match span.stage() {
            Some(Stage::MmapWriteLock) => ns / 10 * 9,
            _ => ns,
        });
        let least = |ns| Share::of(ns, took_ns) >= LEAST;
        match (waited, worked) {
            (Some((first, ns)), _) if wait_ns >= work_ns && least(ns) => {
                Some(wait(fork, first, ns, took_ns))
            }
            (_, Some((span, ns))) if least(ns) => Some(work(fork, span, ns, took_ns)),
            _ => None,
        }
    });
}

/// The stage that worked for longest, and for how long: without its waits and the stages in it.
fn longest_work(fork: &Fork) -> Option<(&Span, u64)> {
    let told = |of: &Span| {
        let shares = fork.stages.iter().filter(move |span| span.of.as_ref() == Some(&of.name));
        shares.count() > 0
    };
    let work = |span: &Span| match span.is_sampled() {
        true => span.dur_ns,
        // What no function was seen in for a handful of samples is of several stages.
        false if told(span) => None,
        // This stage waits for a lock, spinning first and then off its CPU, perhaps many times.
        false if span.stage() == Some(Stage::MmapWriteLock) => worked_ns(&fork.stages, span)
            .map(|ns| ns.saturating_add(blocked_for_mmap_lock(fork, span))),
        // What this tracer did there is no reason for a fork to be slow.
        false => worked_ns(&fork.stages, span)
            .map(|ns| ns.saturating_sub(span.tracer_ns.unwrap_or_default())),
    };
    let stages = fork.stages.iter().filter_map(|span| Some((span, work(span)?)));
    stages.max_by_key(|(_, work_ns)| *work_ns)
}

/// How long an attempt was off its CPU in the stage that waits for `mmap_lock`, as far as it was not runnable.
fn blocked_for_mmap_lock(fork: &Fork, span: &Span) -> u64 {
    let others = fork
        .waits
        .iter()
        .filter(|wait| wait.stage.as_ref() == Some(&span.name) && wait.state != WaitState::Blocked);
    let more = fork.waits_more.map_or(0, |more| {
        more.preempted_ns.unwrap_or_default() + more.quota_ns.unwrap_or_default()
    });
    let runnable_ns = others.map(|wait| wait.dur_ns).sum::<u64>() + more;
    span.off_cpu_ns.unwrap_or_default().saturating_sub(runnable_ns)
}

fn row(name: &str) -> &'static Reason {
    REASONS.iter().find(|reason| reason.name == name).unwrap_or(&UNKNOWN)
}

fn wait(fork: &Fork, first: &Wait, ns: u64, took_ns: u64) -> Slow {
    let reason = row(&first.reason);
    let mut text = format!("{} {}", percent(ns, took_ns), reason.text);
    if first.reason == "lock"
        && let Some(lock) = &first.lock
    {
        text.push_str(&format!(" that {lock} takes"));
    }
    if first.reason == UNKNOWN.name
        && let Some(function) = first.stack.first()
    {
        text.push_str(&format!(" in {function}"));
    }
    let by = first.by.as_ref().map(|by| keeper(by, first.state)).unwrap_or_default();
    text.push_str(&format!(": {} of {}{by}", duration(ns), duration(took_ns)));
    if let Some(stage) = first.stage.as_deref().filter(|_| first.state == WaitState::Blocked) {
        text.push_str(&format!(", in {stage}"));
    }
    if first.reason == "preempted" {
        let told_ns: u64 = fork.waits.iter().map(|wait| wait.dur_ns).sum();
        let off_ns = told_ns + fork.waits_more.map_or(0, |more| more.dur_ns);
        text.push_str(&format!("; it had a CPU for {}", duration(took_ns.saturating_sub(off_ns))));
    }
    Slow {
        kind: Name::Owned(format!("wait:{}", first.reason)),
        share: Share::of(ns, took_ns),
        text,
        hint: Some(Name::Borrowed(reason.cure)),
    }
}

/// Who kept the task, in words.
fn keeper(by: &Keeper, state: WaitState) -> String {
    let name = |id: u32| match &by.comm {
        Some(comm) => format!("{comm} ({id})"),
        None => id.to_string(),
    };
    match by {
        Keeper { cpu: Some(cpu), .. } => format!(" behind other tasks on CPU {cpu}"),
        Keeper { cgroup: Some(cgroup), .. } => format!(", in {cgroup}"),
        Keeper { tid: Some(tid), reads: Some(true), .. } => {
            format!("; thread {} was the last to take it, for reading", name(*tid))
        }
        Keeper { reads: Some(true), .. } => {
            ", held for reading, as by threads that fault pages in".to_owned()
        }
        Keeper { tid: Some(tid), .. } => format!(", held by thread {}", name(*tid)),
        Keeper { pid: Some(pid), .. } if state == WaitState::Stopped => {
            format!(", by {}", name(*pid))
        }
        Keeper { pid: Some(pid), .. } => format!(", for {}", name(*pid)),
        Keeper { .. } => String::new(),
    }
}

fn work(fork: &Fork, span: &Span, ns: u64, took_ns: u64) -> Slow {
    let share = percent(ns, took_ns);
    let stage = span.stage();
    let kind = Name::Owned(match stage {
        Some(Stage::MmapWriteLock) => "wait:mmap_lock".to_owned(),
        _ => format!("work:{}", span.name),
    });
    let memory =
        stage.is_some_and(|stage| stage.is_within(Stage::CopyMm) || stage == Stage::CopyMm);
    let (mut text, hint) = match stage {
        Some(Stage::CopyPageRange | Stage::DupMmap | Stage::CopyMm) if memory => copying(fork, ns),
        _ if span.of.as_deref() == Some(Stage::BadForkCleanup.row().name) => {
            let text = format!("undoing what was copied, in {}: {}", span.name, duration(ns));
            (text, None)
        }
        Some(Stage::MmapWriteLock) => {
            let spun = duration(ns.saturating_sub(blocked_for_mmap_lock(fork, span)));
            let reason = row("mmap_lock");
            (format!("{}, {spun} of it spinning: {}", reason.text, duration(ns)), Some(reason.cure))
        }
        Some(Stage::WriteLockSlowpath) => {
            let reason = row(Stage::TasklistLock.row().name);
            (format!("{}, spinning: {}", reason.text, duration(ns)), Some(reason.cure))
        }
        Some(stage) => {
            let mappings = fork.memory.copied_vmas.filter(|_| stage.is_within(Stage::DupMmap));
            let mappings = mappings.map(|of| format!(", of {} mappings", count(of)));
            let (what, mappings) = (stage.row().what, mappings.unwrap_or_default());
            (format!("in {}: {what}{mappings}: {}", span.name, duration(ns)), cure(stage))
        }
        None => (format!("in {}: {}", span.name, duration(ns)), None),
    };
    text.push_str(&format!(" of {}", duration(took_ns)));
    if let Some(samples) = span.samples.filter(|_| span.is_sampled()) {
        text.push_str(&format!(", by {} samples", count(samples)));
    }
    Slow {
        kind,
        share: Share::of(ns, took_ns),
        text: format!("{share} {text}"),
        hint: hint.map(Name::Borrowed),
    }
}

/// What helps where a stage works for long.
const fn cure(stage: Stage) -> Option<&'static str> {
    match stage {
        Stage::AnonVmaFork => Some(
            "each mapping is entered into the reverse mapping of every ancestor whose pages it \
             shares: fork from a process that is not at the end of a long chain of forks without \
             exec, or merge its mappings",
        ),
        Stage::PerfEventInitTask => Some(
            "each inherited perf event of the parent is cloned: open fewer events, or open them \
             without inherit (perf record and perf stat: --no-inherit)",
        ),
        _ => None,
    }
}

/// What copying the address space took, with the figures that are known of it.
fn copying(fork: &Fork, ns: u64) -> (String, Option<&'static str>) {
    const HINT: &str = "posix_spawn or vfork copies no memory; or fork from a process with little \
                        memory, before it grows";
    let memory = &fork.memory;
    let mut text = match memory.copied_page_table_bytes {
        Some(bytes) => format!("copying {} of page tables", size(bytes)),
        None => "copying the address space".to_owned(),
    };
    // Not all that the caller has is copied: memory under MADV_DONTFORK is not. What is in swap costs the same.
    let swapped = memory.copied_swap_pages.unwrap_or_default();
    let pages = memory.copied_anon_pages.map(|pages| pages.saturating_add(swapped));
    let bytes = pages.map(|pages| pages.saturating_mul(PAGE_BYTES));
    match bytes.filter(|bytes| *bytes >= LEAST_BYTES) {
        Some(bytes) => {
            text.push_str(&format!(" for {} of anonymous memory", size(bytes)));
            if swapped > 0 {
                let swapped = size(swapped.saturating_mul(PAGE_BYTES));
                text.push_str(&format!(" ({swapped} of it in swap)"));
            }
            text.push_str(&format!(", {}", per_gib(ns, bytes)));
        }
        None => {
            if let Some(mappings) = memory.copied_vmas {
                text.push_str(&format!(" of {} mappings", count(mappings)));
            }
        }
    }
    (format!("{text}: {}", duration(ns)), Some(HINT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fork(rest: &str) -> Fork {
        let head = r#"{"id":"1-1","ts":"2026-01-01T00:00:00Z","mono_ns":1,"kind":"process",
            "syscall":"fork","parent":{"pid":1,"tid":1,"ppid":0,"comm":"a","uid":0}"#;
        serde_json::from_str(&format!("{head},{rest}}}")).unwrap()
    }

    fn verdict(rest: &str) -> Option<Slow> {
        let mut fork = fork(rest);
        add(&mut fork);
        fork.slow
    }

    const STAGES_OF_A_COPY: &str = r#""stages":[
        {"name":"copy_mm","start_ns":0,"dur_ns":97000000,"self_ns":1000000,"off_cpu_ns":OFF,
         "status":"done","precision":"bounded"},
        {"name":"copy_page_range","start_ns":0,"dur_ns":96000000,"self_ns":96000000,
         "off_cpu_ns":OFF,"status":"done","precision":"bounded"}],
        "memory":{"vmas":30,"total_vm_pages":9,"rss_pages":7000000,"anon_pages":6291456,
        "copied_vmas":30,"copied_page_table_bytes":50331648,"copied_anon_pages":6291456}"#;

    #[test]
    fn copying_is_proved_by_what_was_copied() {
        let stages = STAGES_OF_A_COPY.replace(r#""off_cpu_ns":OFF,"#, "");
        let times = r#""total_ns":100000000,"held_ns":100000000"#;
        let slow = verdict(&format!("{times},{stages}")).unwrap();
        assert_eq!(slow.kind, "work:copy_page_range");
        assert_eq!(slow.share, Share(960));
        assert_eq!(
            slow.text,
            "96% copying 48.0 MiB of page tables for 24.0 GiB of anonymous memory, 4.00 ms/GiB: \
             96.0 ms of 100 ms"
        );
        assert!(slow.hint.is_some_and(|hint| hint.contains("posix_spawn")));
        assert_eq!(verdict(&format!(r#""total_ns":9999999,"held_ns":9999999,{stages}"#)), None);
        assert_eq!(verdict(&format!(r#""total_ns":100000000,{stages}"#)), None, "still held");
    }

    #[test]
    fn what_was_not_copied_has_no_price() {
        let stages = STAGES_OF_A_COPY
            .replace(r#""off_cpu_ns":OFF,"#, "")
            .replace(r#""copied_anon_pages":6291456"#, r#""copied_anon_pages":20"#);
        let times = r#""total_ns":100000000,"held_ns":100000000"#;
        let text = verdict(&format!("{times},{stages}")).unwrap().text;
        assert_eq!(text, "96% copying 48.0 MiB of page tables of 30 mappings: 96.0 ms of 100 ms");
    }

    #[test]
    fn what_the_tracer_did_is_no_work() {
        let stages = |tracer_ns: u64| {
            format!(
                r#""held_ns":12000000,"stages":[{{"name":"uprobe_copy_process","start_ns":0,
                "dur_ns":11000000,"tracer_ns":{tracer_ns}}}]"#
            )
        };
        assert_eq!(verdict(&stages(0)).unwrap().kind, "work:uprobe_copy_process");
        assert_eq!(verdict(&stages(10_000_000)), None);
    }

    #[test]
    fn time_off_the_cpu_is_no_work() {
        let stages = STAGES_OF_A_COPY.replace("OFF", "90000000");
        let wait = r#""waits":[{"at_ns":1,"dur_ns":60000000,"stage":"copy_page_range",
            "state":"runnable","reason":"preempted","by":{"cpu":1}}],
            "waits_more":{"count":10,"dur_ns":30000000,"preempted_ns":30000000}"#;
        let times = r#""total_ns":100000000,"held_ns":100000000,"off_cpu_ns":90000000"#;
        let slow = verdict(&format!("{times},{wait},{stages}")).unwrap();
        assert_eq!((slow.kind.as_ref(), slow.share), ("wait:preempted", Share(900)));
        assert_eq!(
            slow.text,
            "90% runnable but not running: 90.0 ms of 100 ms behind other tasks on CPU 1; it had a \
             CPU for 10.0 ms"
        );
    }

    #[test]
    fn waits_that_are_not_told_one_by_one_count_with_those_that_are() {
        let wait = r#""waits":[{"at_ns":1,"dur_ns":20000000,"stage":"copy_page_range",
            "state":"runnable","reason":"cpu-quota"}],
            "waits_more":{"count":7,"dur_ns":70000000,"preempted_ns":10000000,"quota_ns":60000000}"#;
        let times = r#""total_ns":100000000,"held_ns":100000000,"off_cpu_ns":90000000"#;
        let slow = verdict(&format!("{times},{wait}")).unwrap();
        assert_eq!((slow.kind.as_ref(), slow.share), ("wait:cpu-quota", Share(800)));
    }

    #[test]
    fn thin_evidence_gives_no_verdict() {
        let stages = r#""stages":[{"name":"copy_mm","start_ns":0,"dur_ns":9000000,
            "self_ns":9000000,"status":"done","precision":"bounded"}]"#;
        assert_eq!(verdict(&format!(r#""total_ns":40000000,"held_ns":40000000,{stages}"#)), None);
        assert_eq!(verdict(r#""total_ns":40000000,"held_ns":40000000"#), None);
    }

    #[test]
    fn a_keeper_is_named_as_far_as_it_is_known() {
        let by = |by: &str| {
            let times = r#""total_ns":100000000,"held_ns":100000000"#;
            let wait = format!(
                r#""waits":[{{"at_ns":1,"dur_ns":92000000,"stage":"mmap_write_lock",
                "state":"blocked","reason":"mmap_lock","lock":"mmap_lock"{by}}}]"#
            );
            verdict(&format!("{times},{wait}")).unwrap().text
        };
        assert_eq!(by(""), "92% waiting for mmap_lock: 92.0 ms of 100 ms, in mmap_write_lock");
        let thread = r#","by":{"tid":4711,"comm":"worker"}"#;
        assert!(by(thread).contains(", held by thread worker (4711), in"), "{}", by(thread));
        let reader = r#","by":{"tid":4711,"reads":true}"#;
        assert!(by(reader).contains("thread 4711 was the last to take it, for reading"));
        assert!(by(r#","by":{"reads":true}"#).contains("held for reading"));
    }

    #[test]
    fn a_lock_that_is_waited_for_in_many_pieces_is_one_wait() {
        let text = r#""total_ns":12700000,"held_ns":12700000,"off_cpu_ns":7730000,
            "waits":[{"at_ns":100,"dur_ns":2000000,"stage":"mmap_write_lock","state":"blocked","reason":"mmap_lock"},
                {"at_ns":5000100,"dur_ns":30000,"stage":"mmap_write_lock","state":"runnable","reason":"preempted"}],
            "waits_more":{"count":23,"dur_ns":5700000,"preempted_ns":100000},
            "stages":[{"name":"mmap_write_lock","start_ns":0,"dur_ns":11770000,"off_cpu_ns":7730000}]"#;
        let slow = verdict(text).unwrap();
        assert_eq!(
            slow.text,
            "92% waiting for mmap_lock, 4.04 ms of it spinning: 11.6 ms of 12.7 ms"
        );
        assert_eq!((&*slow.kind, slow.share), ("wait:mmap_lock", Share(916)));
    }

    #[test]
    fn what_is_undone_is_not_built() {
        let stages = |of: &str| {
            format!(
                r#""total_ns":100000000,"held_ns":100000000,"stages":[
                {{"name":"bad_fork_cleanup","start_ns":0,"dur_ns":90000000,"self_ns":90000000}},
                {{"name":"copy_process","dur_ns":80000000,"precision":"sampled","samples":80,"of":"{of}"}}]"#
            )
        };
        let text = verdict(&stages("bad_fork_cleanup")).unwrap().text;
        assert_eq!(
            text,
            "80% undoing what was copied, in copy_process: 80.0 ms of 100 ms, by 80 samples"
        );
    }
}
