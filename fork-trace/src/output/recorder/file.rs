//! Writes recordings into a folder, and keeps it from growing without end.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, Read},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;

use crate::{
    event::{
        Event,
        clock::Clock,
        notice::{Loss, Warning},
        replay::Replay,
        start::Start,
        summary::Summary,
        tally::Tally,
        units::counted,
        values::Name,
    },
    output::{
        compress,
        json::Json,
        recorder::{
            kept::{Copied, pack},
            trigger::{Reason, Trigger},
        },
        sink::Sink as _,
    },
};

/// How the names of recordings begin and end.
const NAME: (&str, &str) = ("fork-trace-", ".json.gz");

/// How names end that are not written to their end.
const UNFINISHED: &str = ".unfinished";

/// The moment in a name: 20260131T120000.123Z.
const MOMENT: usize = 20;

/// What is to be written.
pub(super) struct Recording {
    pub(super) reason: Reason,
    /// The `start` line of the trace, and when it came.
    pub(super) start: Start,
    pub(super) began: Instant,
    pub(super) kept: Copied,
    /// The moment of the copy.
    pub(super) now: Instant,
}

/// Where recordings are written.
pub(super) struct Folder {
    path: PathBuf,
    /// How many there are at most.
    keep: usize,
}

impl Folder {
    pub(super) const fn new(path: PathBuf, keep: usize) -> Self {
        Self { path, keep }
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Makes it if need be, tries to write into it, and removes what was not written to its end.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn prepare(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        for name in self.names(UNFINISHED)? {
            fs::remove_file(self.path.join(name))?;
        }
        let name =
            self.path.join(format!("{}{UNFINISHED}", name(Timestamp::now(), Trigger::Signal)));
        create(&name)?;
        fs::remove_file(name)
    }

    /// Writes a recording under a name of its own, which it gets only when it is whole; returns that name.
    ///
    /// # Errors
    /// What the system says. Nothing of it is left then, unless that cannot be removed either.
    pub(super) fn write(&self, recording: &Recording) -> io::Result<String> {
        let name = name(Timestamp::now(), recording.reason.trigger);
        let (whole, part) = (self.path.join(&name), self.path.join(format!("{name}{UNFINISHED}")));
        let mut file = create(&part)?;
        let written = recording.write(&mut file).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| fs::rename(&part, &whole)) {
            // The folder may be gone, too.
            fs::remove_file(&part).ok();
            return Err(error);
        }
        self.prune();
        Ok(whole.display().to_string())
    }

    /// Removes the oldest recordings if there are too many. Nothing is removed that has another name.
    fn prune(&self) {
        let mut names = self.names("").unwrap_or_default();
        // Their names begin with the moment.
        names.sort_unstable();
        let surplus = names.len().saturating_sub(self.keep);
        for name in names.iter().take(surplus) {
            if let Err(error) = fs::remove_file(self.path.join(name)) {
                log::error!("remove {name}: {error}");
            }
        }
    }

    /// The names of recordings with this behind them.
    fn names(&self, behind: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let is_own = name.strip_suffix(behind).is_some_and(is_recording);
            if is_own && entry.file_type()?.is_file() {
                names.push(name);
            }
        }
        Ok(names)
    }
}

/// A new file that only its owner may read.
fn create(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn name(at: Timestamp, trigger: Trigger) -> String {
    let (begin, end) = NAME;
    let moment = at.strftime("%Y%m%dT%H%M%S");
    format!("{begin}{moment}.{:03}Z-{}{end}", at.subsec_millisecond(), trigger.name())
}

/// Whether a name is one that [`name`] makes.
fn is_recording(name: &str) -> bool {
    let inner = name.strip_prefix(NAME.0).and_then(|rest| rest.strip_suffix(NAME.1));
    let parts = inner.and_then(|inner| Some((inner.get(..MOMENT)?, inner.get(MOMENT..)?)));
    let Some((moment, trigger)) = parts else { return false };
    let is_moment = moment.bytes().zip(b"00000000T000000.000Z").all(|(byte, like)| match like {
        b'0' => byte.is_ascii_digit(),
        _ => byte == *like,
    });
    let trigger = trigger.strip_prefix('-');
    is_moment && Trigger::ALL.iter().any(|known| Some(known.name()) == trigger)
}

impl Recording {
    /// Writes members of gzip one after the other: the beginning, what is kept, and the end.
    fn write(&self, to: &mut impl io::Write) -> io::Result<()> {
        let (start, mono_ns) = self.start();
        let parts = [pack(&self.beginning(start)?)?.into()];
        let kept = self.kept.packed.iter().map(Arc::clone);
        let mut parts: Vec<Arc<[u8]>> = parts.into_iter().chain(kept).collect();
        if !self.kept.text.is_empty() {
            parts.push(pack(&self.kept.text)?.into());
        }
        for part in &parts {
            to.write_all(part)?;
        }
        let summary = summary(parts, mono_ns)?;
        let mut end = Json::new(Vec::new());
        end.event(&Event::Summary(Box::new(summary)))?;
        to.write_all(&pack(end.writer())?)
    }

    /// The `start` line: from its moment on everything is there. Returns the moment of the end, too.
    fn start(&self) -> (Start, u64) {
        let nanos = |later: Instant| {
            let passed = later.saturating_duration_since(self.began).as_nanos();
            self.start.mono_ns.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
        };
        let now_ns = nanos(self.now);
        let mut start = self.start.clone();
        if let Some(left_until) = self.kept.left_until {
            // An attempt that came later may have begun before.
            let from_ns = self.kept.earliest_ns.unwrap_or(u64::MAX).min(nanos(left_until));
            start.mono_ns = from_ns.max(start.mono_ns);
            start.ts = Clock::new(Timestamp::now(), now_ns).at(start.mono_ns);
        }
        (start, now_ns)
    }

    /// The `start` line, and why there is a recording.
    fn beginning(&self, start: Start) -> io::Result<Vec<u8>> {
        let Reason { what, fork_id, .. } = &self.reason;
        let left = match self.kept.left.all() {
            0 => String::new(),
            left => format!("; {} before it had left memory", counted(left, "line")),
        };
        let mut json = Json::new(Vec::new());
        json.event(&Event::Start(Box::new(start)))?;
        json.event(&Event::Warning(Warning {
            code: Name::Borrowed("recording"),
            text: format!("this was in memory when {what}{left}"),
            hint: None,
            fork_id: fork_id.clone(),
        }))?;
        Ok(std::mem::take(json.writer()))
    }
}

/// The summary of what is recorded in `parts`, which end at `end_ns`.
fn summary(parts: Vec<Arc<[u8]>>, end_ns: u64) -> io::Result<Summary> {
    let reader = compress::reader(Parts { parts: parts.into(), at: 0 })?;
    let mut replay = Replay::new(BufReader::new(reader), "what is recorded".to_owned());
    let (mut tally, mut summary) = (Tally::new(None), Summary::default());
    while let Some(event) = replay.next_event().map_err(io::Error::other)? {
        match event {
            Event::Start(start) => summary.traced_ns = end_ns.checked_sub(start.mono_ns),
            Event::Fork(fork) => tally.add(&fork),
            Event::VforkDone(done) => tally.add_held(&done),
            Event::Loss(Loss { records, by, .. }) => {
                summary.lost = summary.lost.saturating_add(records);
                for (place, count) in by {
                    let lost = summary.lost_by.entry(place).or_default();
                    *lost = lost.saturating_add(count);
                }
            }
            Event::Stage(_)
            | Event::Exec(_)
            | Event::Exit(_)
            | Event::Stuck(_)
            | Event::Warning(_)
            | Event::Summary(_) => {}
        }
    }
    Ok(tally.complete(summary))
}

/// Bytes of several parts, one after the other.
struct Parts {
    parts: VecDeque<Arc<[u8]>>,
    /// What was read of the first.
    at: usize,
}

impl Read for Parts {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(part) = self.parts.front() {
            let mut rest = part.get(self.at..).unwrap_or_default();
            if !rest.is_empty() {
                let read = rest.read(buffer)?;
                self.at += read;
                return Ok(read);
            }
            self.at = 0;
            self.parts.pop_front();
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_again_and_no_others() {
        let at: Timestamp = "2026-01-31T12:00:05.0071Z".parse().unwrap();
        for trigger in Trigger::ALL {
            let name = name(at, trigger);
            assert!(is_recording(&name), "{name}");
        }
        let known = name(at, Trigger::Stuck);
        assert_eq!(known, "fork-trace-20260131T120005.007Z-stuck.json.gz");
        for other in [
            "fork-trace-20260131T120005.007Z-stuck.json",
            "fork-trace-20260131T120005.007Z-stack.json.gz",
            "fork-trace-20260131T120005.007Z.json.gz",
            "fork-trace-2026013xT120005.007Z-stuck.json.gz",
            "fork-trace-mine-stuck.json.gz",
            "my-fork-trace-20260131T120005.007Z-stuck.json.gz",
            "fork-trace-20260131T120005.00\u{e4}-stuck.json.gz",
            "",
        ] {
            assert!(!is_recording(other), "{other}");
        }
    }
}
