//! Records from a moment on: a file that `replay` reads.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    error::UserError,
    event::{Event, notice::Loss, start::Start, summary::Summary, values::Ts},
    output::{
        files::Owner,
        formats::Format,
        options::{Color, DefaultOutput, OutputOptions},
        outputs::Outputs,
        told::Told,
    },
};

/// How long to wait for a file that takes no more.
const PATIENCE: Duration = Duration::from_secs(1);

/// A recording under way.
pub(super) struct Recording {
    pub(super) path: PathBuf,
    outputs: Outputs,
    /// When it began, `CLOCK_MONOTONIC`; what began before is left out.
    began_ns: u64,
    began: Instant,
    summary: Summary,
}

/// The file of the next recording: `asked`, or one that has the date in its name; a second one has a number.
pub(super) fn file(asked: Option<&Path>, number: u32) -> PathBuf {
    let Some(path) = asked else {
        let now = TimeZone::system().to_datetime(Timestamp::now());
        return PathBuf::from(format!("fork-trace-{}.jsonl", now.strftime("%Y%m%d-%H%M%S")));
    };
    if number == 0 {
        return path.to_owned();
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (stem, endings) = name.split_once('.').unwrap_or((&name, ""));
    let dot = if endings.is_empty() { "" } else { "." };
    path.with_file_name(format!("{stem}-{}{dot}{endings}", number + 1))
}

impl Recording {
    /// Begins one in the file `path`, of the trace that `start` is of and that was seen to begin at `seen`.
    pub(super) fn begin(
        path: PathBuf,
        owner: Option<Owner>,
        start: &Start,
        seen: Instant,
    ) -> Result<Self, UserError> {
        let options = OutputOptions {
            format: Format::named("json").unwrap_or_else(Format::text),
            files: vec![path.clone()],
            owner,
            told: Told::Forks,
            stages: false,
            summary: None,
            color: Color::Never,
            utc: false,
            quiet: true,
        };
        let mut outputs = Outputs::open(&options, DefaultOutput::Stdout, None, &|| true)?;
        let passed = u64::try_from(seen.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let began_ns = start.mono_ns.saturating_add(passed);
        let start = Start { ts: Ts(Timestamp::now()), mono_ns: began_ns, ..start.clone() };
        outputs.event(Event::Start(Box::new(start)));
        let summary = Summary::default();
        Ok(Self { path, outputs, began_ns, began: Instant::now(), summary })
    }

    /// Takes an event; returns whether it can go on.
    pub(super) fn take(&mut self, event: impl FnOnce() -> Event, began_ns: Option<u64>) -> bool {
        if began_ns.is_some_and(|began_ns| began_ns < self.began_ns) {
            return true;
        }
        let is_taken = self.outputs.wait_for_room(Some(Instant::now() + PATIENCE));
        let event = event();
        if let Event::Loss(Loss { records, by, .. }) = &event {
            self.summary.lost += records;
            for (name, number) in by {
                *self.summary.lost_by.entry(name.clone()).or_default() += number;
            }
        }
        self.outputs.event(event);
        is_taken && self.outputs.is_open()
    }

    /// What was taken becomes visible; returns whether it can go on.
    pub(super) fn tick(&mut self) -> bool {
        self.outputs.tick();
        self.outputs.is_open()
    }

    /// Ends it; returns the file.
    ///
    /// # Errors
    /// It could not be written.
    pub(super) fn end(self) -> Result<PathBuf, UserError> {
        let Self { path, mut outputs, began, summary, .. } = self;
        let traced_ns = u64::try_from(began.elapsed().as_nanos()).ok();
        outputs.summary(Summary { traced_ns, ..summary });
        let mut failed = outputs.finish(Some(Instant::now() + PATIENCE)).failed;
        failed.pop().map_or(Ok(path), Err)
    }
}

/// When the attempt of this id began, `CLOCK_MONOTONIC`.
pub(super) fn began_ns(fork_id: &str) -> Option<u64> {
    fork_id.rsplit_once('-')?.1.parse().ok()
}
