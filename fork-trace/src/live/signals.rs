//! The signals that end a trace, and how they are passed on to a traced command.

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
};

/// The signals that end a trace; from the moment this is made they are kept for it.
pub struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    interrupts: u32,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// There is no event loop, or the system refuses.
    pub fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            interrupts: 0,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.hang_up.recv() => Signal::SIGHUP,
        }
    }

    /// With a command the trace ends when the command does: Ctrl-C has reached it through the
    /// terminal, other signals are passed on to it. A second Ctrl-C ends the trace all the same.
    pub fn passed_on(&mut self, signal: Signal, command: Option<&Child>) -> bool {
        let pid = command.and_then(Child::id).and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid else { return false };
        if signal == Signal::SIGINT {
            self.interrupts += 1;
            return self.interrupts == 1;
        }
        kill(Pid::from_raw(pid), signal).is_ok()
    }
}
