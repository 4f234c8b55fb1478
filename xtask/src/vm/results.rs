//! What a guest told: the plan of its kernel, and how the live tests went for each backend.
//!
//! It is told by `init.sh`, which passes on what Rust's test programs print. Nothing here reads or
//! writes a file.

use serde_json::Value;

use crate::check::outcome::failures;

/// Everything a guest told.
#[derive(Default)]
pub(crate) struct Results {
    /// What `fork-trace doctor --json` printed.
    pub(crate) doctor: Option<Value>,
    /// The backends, in the order in which they ran.
    pub(crate) runs: Vec<Run>,
    /// Whether it came to its end.
    pub(crate) done: bool,
}

/// One backend.
pub(crate) struct Run {
    pub(crate) backend: String,
    /// How many tests passed, and how many seconds all of them took; absent if they did not end.
    pub(crate) passed: Option<(u32, f64)>,
    /// What did not work, with its reason.
    pub(crate) failed: Vec<(String, String)>,
    /// What worked only when it was tried again, with the reason why it did not work at first.
    pub(crate) again: Vec<(String, String)>,
    /// Whether it came to its end.
    pub(crate) ended: bool,
}

impl Results {
    /// Reads all that was told, which may break off anywhere.
    pub(crate) fn read(told: &str) -> Self {
        let mut results = Self::default();
        let mut output = Vec::new();
        for line in told.lines().map(str::trim_end) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "plan" => results.doctor = serde_json::from_str(rest).ok(),
                "begin" => {
                    results.runs.push(Run::begun(rest));
                    output.clear();
                }
                "broken" => {
                    if let Some(run) = results.runs.last_mut() {
                        run.failed.push(("it does not trace".to_owned(), rest.to_owned()));
                    }
                }
                "again" => {
                    if let Some(run) = results.runs.last_mut() {
                        run.take(&output);
                        let failed = std::mem::take(&mut run.failed);
                        run.again.extend(failed);
                    }
                    output.clear();
                }
                "end" => {
                    if let Some(run) = results.runs.last_mut() {
                        run.ended = true;
                        run.take(&output);
                    }
                }
                "done" => results.done = true,
                _ => output.push(line),
            }
        }
        results
    }
}

impl Results {
    /// Takes the results of a second boot, which ran the backends that had not ended in the first.
    pub(crate) fn go_on(&mut self, later: Self) {
        self.runs.retain(|run| run.ended);
        self.runs.extend(later.runs);
        self.doctor = self.doctor.take().or(later.doctor);
        self.done = later.done;
    }
}

impl Run {
    fn begun(backend: &str) -> Self {
        Self {
            backend: backend.to_owned(),
            passed: None,
            failed: Vec::new(),
            again: Vec::new(),
            ended: false,
        }
    }

    /// Reads the test program's output.
    fn take(&mut self, output: &[&str]) {
        let Some(result) = output.iter().find_map(|line| line.strip_prefix("test result: ")) else {
            if self.failed.is_empty() {
                self.failed.push(("the tests broke off".to_owned(), String::new()));
            }
            return;
        };
        let number = |before: &str| {
            let (head, _) = result.split_once(before)?;
            head.rsplit(' ').next()?.parse().ok()
        };
        let seconds =
            result.rsplit(' ').next().and_then(|last| last.trim_end_matches('s').parse().ok());
        let (before, time) = self.passed.unwrap_or_default();
        self.passed = number(" passed")
            .zip(seconds)
            .map(|(passed, seconds): (u32, f64)| (before + passed, time + seconds));
        if result.starts_with("ok") {
            return;
        }
        self.failed = failures(output);
        self.again.retain(|(name, _)| self.failed.iter().all(|(failed, _)| failed != name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: &str = "plan {\"coverage\":[]}\r
begin inner\r
running 3 tests\r
test a::one ... ok\r
test a::two ... FAILED\r
\r
failures:\r
\r
---- a::two stdout ----\r
\r
thread 'a::two' (7) panicked at fork-trace/tests/live/a.rs:85:9:\r
assertion failed: x\r
stack backtrace:\r
\r
\r
failures:\r
    a::two\r
\r
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 1 filtered out; finished in 1.82s\r
end\r
begin tracepoint\r
broken fork-trace: cannot load sys_enter\r
end\r
begin fentry\r
running 3 tests\r
";

    #[test]
    fn each_backend_has_its_numbers_and_reasons() {
        let results = Results::read(TOLD);
        assert!(results.doctor.is_some() && !results.done);
        let [inner, tracepoint, fentry] = &results.runs[..] else { panic!() };
        assert_eq!((inner.backend.as_str(), inner.passed), ("inner", Some((1, 1.82))));
        let reason = "a.rs:85:9: assertion failed: x".to_owned();
        assert_eq!(inner.failed, [("a::two".to_owned(), reason)]);
        assert_eq!(tracepoint.passed, None);
        assert_eq!(tracepoint.failed[0].1, "fork-trace: cannot load sys_enter");
        assert_eq!((fentry.passed, fentry.failed.len()), (None, 0), "cut off");
    }

    #[test]
    fn what_works_at_the_second_try_is_told_as_such() {
        let first = TOLD.split("end\r\n").next().unwrap();
        let passes = "test result: ok. 1 passed; 0 failed; finished in 0.18s\r\nend\r\n";
        let results = Results::read(&format!("{first}again\r\nrunning 1 test\r\n{passes}"));
        let run = &results.runs[0];
        assert_eq!((run.passed, run.failed.len(), run.again.len()), (Some((2, 2.0)), 0, 1));
        let results = Results::read(&format!("{first}again\r\n{}", first.replace("begin", "x")));
        let run = &results.runs[0];
        assert_eq!((run.failed.len(), run.again.len()), (0, 1), "it ended before its time");
        let twice = first.split("begin inner\r\n").nth(1).unwrap();
        let results = Results::read(&format!("{first}again\r\n{twice}end\r\n"));
        assert_eq!((results.runs[0].failed.len(), results.runs[0].again.len()), (1, 0));
        let results = Results::read(&format!("{first}again\r\n{twice}again\r\n{passes}"));
        assert_eq!((results.runs[0].failed.len(), results.runs[0].again.len()), (0, 1), "thrice");
    }

    #[test]
    fn what_had_not_ended_is_taken_from_the_next_boot() {
        let mut results = Results::read(TOLD);
        results
            .go_on(Results::read("begin fentry\ntest result: ok. 3 passed; x 2.0s\nend\ndone\n"));
        let names: Vec<_> = results.runs.iter().map(|run| run.backend.as_str()).collect();
        assert_eq!(names, ["inner", "tracepoint", "fentry"]);
        assert_eq!(results.runs[2].passed, Some((3, 2.0)));
        assert!(results.done && results.doctor.is_some());
    }

    #[test]
    fn a_guest_that_ends_well_says_so() {
        assert!(Results::read("begin inner\nend\ndone\n").done);
        assert_eq!(Results::read("begin inner\nend\ndone\n").runs[0].failed.len(), 1);
    }
}
