//! What the user should know beside the data: warnings and losses, for stderr.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    event::{
        Event,
        fork::Fork,
        notice::{Loss, Warning},
        units::{count, counted},
    },
    output::{files::Standard, sink::Sink, text::line::printable},
};

/// Standard error, as far as it takes what is written within some time. The rest is left out: no word to
/// the user may keep this process from working or ending.
pub struct Stderr {
    standard: Standard,
    patience: PollTimeout,
}

impl Stderr {
    /// For what is said while there is other work: it does not wait at all.
    #[must_use]
    pub const fn busy() -> Self {
        Self { standard: Standard::error(), patience: PollTimeout::ZERO }
    }

    /// For the last words of a process: it waits for a moment.
    #[must_use]
    pub fn patient() -> Self {
        const MOMENT: Duration = Duration::from_millis(200);
        let patience = PollTimeout::try_from(MOMENT).unwrap_or(PollTimeout::ZERO);
        Self { standard: Standard::error(), patience }
    }
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut fds = [PollFd::new(std::os::fd::AsFd::as_fd(&self.standard), PollFlags::POLLOUT)];
        match poll(&mut fds, self.patience) {
            // A moment's signal is no reason to give up what would be taken.
            Err(Errno::EINTR) => return Err(io::ErrorKind::Interrupted.into()),
            Ok(0) => return Ok(bytes.len()),
            _ => {}
        }
        // KERNEL: fs/pipe.c `pipe_poll`: a pipe that can be written has room for a page.
        let fits = bytes.get(..libc::PIPE_BUF).unwrap_or(bytes);
        self.standard.write(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes warnings and losses as plain lines and leaves every other event out.
pub struct Notes<W>(W);

impl<W: Write> Notes<W> {
    /// Onto `writer`, which is flushed after each note.
    pub const fn new(writer: W) -> Self {
        Self(writer)
    }

    fn warning(&mut self, warning: &Warning) -> io::Result<()> {
        writeln!(self.0, "fork-trace: warning: {}", printable(&warning.text))?;
        if let Some(hint) = &warning.hint {
            writeln!(self.0, "  hint: {}", printable(hint))?;
        }
        self.0.flush()
    }

    fn loss(&mut self, loss: &Loss) -> io::Result<()> {
        let mut by = String::new();
        for (place, number) in loss.by.iter().filter(|(_, number)| **number > 0) {
            let comma = if by.is_empty() { "" } else { ", " };
            // Writing into a String cannot fail.
            _ = write!(by, "{comma}{} {}", printable(place), count(*number));
        }
        if loss.records == 0 {
            writeln!(self.0, "fork-trace: no fork was lost, but details of some: {by}")?;
            return self.0.flush();
        }
        let by = if by.is_empty() { by } else { format!(" ({by})") };
        writeln!(self.0, "fork-trace: lost {}{by}", counted(loss.records, "record"))?;
        self.0.flush()
    }
}

impl<W: Write> Sink for Notes<W> {
    fn fork(&mut self, _fork: &Fork) -> io::Result<()> {
        Ok(())
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Warning(warning) => self.warning(warning),
            Event::Loss(loss) => self.loss(loss),
            Event::Start(_)
            | Event::Fork(_)
            | Event::Stage(_)
            | Event::VforkDone(_)
            | Event::Exec(_)
            | Event::Exit(_)
            | Event::Stuck(_)
            | Event::Summary(_) => Ok(()),
        }
    }

    fn tick(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(event: Event) -> String {
        let mut out = Vec::new();
        Notes::new(&mut out).event(&event).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn losses_and_warnings() {
        let by = [("in_flight_full".into(), 0), ("ring_full".into(), 1_200)].into();
        let loss = Loss { records: 1_201, by, since_mono_ns: 0 };
        assert_eq!(noted(Event::Loss(loss)), "fork-trace: lost 1,201 records (ring_full 1,200)\n");
        let loss = Loss { records: 1, by: [].into(), since_mono_ns: 0 };
        assert_eq!(noted(Event::Loss(loss)), "fork-trace: lost 1 record\n");
        let by = [("off_cpu_missed".into(), 2)].into();
        let loss = Loss { records: 0, by, since_mono_ns: 0 };
        assert_eq!(
            noted(Event::Loss(loss)),
            "fork-trace: no fork was lost, but details of some: off_cpu_missed 2\n"
        );
        let warning = Warning {
            code: "x".into(),
            text: "sys_enter\x1b of i386".to_owned(),
            hint: Some("do this".to_owned()),
            fork_id: None,
        };
        assert_eq!(
            noted(Event::Warning(warning)),
            "fork-trace: warning: sys_enter\\x1b of i386\n  hint: do this\n"
        );
    }
}
