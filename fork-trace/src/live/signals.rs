//! The signals that end a trace, and how they are passed on to a traced command; and the one by which the user asks
//! for a recording.

use std::{cell::Cell, ptr, thread};

use anyhow::{Context as _, Result};
use nix::{
    libc,
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::Pid,
};
use tokio::{
    process::Child,
    signal::unix::{Signal as Stream, SignalKind, signal},
};

/// The signals that end a trace.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Those that this process heeds: what is ignored from the start, as SIGHUP is under `nohup` and SIGINT in
/// a background job of a script, stays ignored.
fn heeded() -> impl Iterator<Item = Signal> {
    ENDING.into_iter().filter(|signal| !is_ignored(*signal))
}

fn is_ignored(signal: Signal) -> bool {
    // SAFETY: all zero is a valid value of this struct of numbers and pointers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: without a new action the call only fills in `action`.
    let asked = unsafe { libc::sigaction(signal as i32, ptr::null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// The signals that end a trace, held back while it is set up.
///
/// A signal that arrives meanwhile would interrupt system calls that load and attach, and the kernel then
/// refuses what it would take otherwise; and one that ended this process in between would leave it to the
/// kernel to detach function probes, which takes seconds. A thread that is started meanwhile never gets
/// these signals at all.
///
/// KERNEL: kernel/bpf/verifier.c `do_check` gives up with EAGAIN when a signal is pending.
pub struct HeldSignals {
    arrivals: SignalFd,
    first: Cell<Option<Signal>>,
    /// What was blocked before.
    before: SigSet,
}

impl HeldSignals {
    /// Holds them back from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> Result<Self> {
        let held: SigSet = heeded().collect();
        let before = SigSet::thread_get_mask().context("ask which signals are blocked")?;
        held.thread_block().context("hold signals back")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let arrivals = SignalFd::with_flags(&held, flags).context("look for held signals")?;
        Ok(Self { arrivals, first: Cell::new(None), before })
    }

    /// The first that has arrived.
    #[must_use]
    pub fn arrived(&self) -> Option<Signal> {
        if self.first.get().is_none()
            && let Ok(Some(info)) = self.arrivals.read_signal()
        {
            let number = i32::try_from(info.ssi_signo).ok();
            self.first.set(number.and_then(|number| Signal::try_from(number).ok()));
        }
        self.first.get()
    }

    /// The signals that were blocked before, for a command to begin with.
    #[must_use]
    pub const fn before(&self) -> SigSet {
        self.before
    }

    /// Lets go of them: from now on they arrive at the [`Signals`].
    ///
    /// # Errors
    /// There is no event loop, or the system refuses.
    pub fn release(self) -> Result<Signals> {
        let listen = |signal| Some(signal).filter(|signal| !is_ignored(*signal)).map(stream);
        let [interrupt, terminate, hang_up] = ENDING.map(|signal| listen(signal).transpose());
        let signals = Signals {
            interrupt: interrupt?,
            terminate: terminate?,
            hang_up: hang_up?,
            interrupts: 0,
        };
        self.before.thread_set_mask().context("let signals arrive")?;
        Ok(signals)
    }
}

fn stream(signal_number: Signal) -> Result<Stream> {
    signal(SignalKind::from_raw(signal_number as i32)).context("listen for signals")
}

/// The signals that end a trace under way.
pub struct Signals {
    interrupt: Option<Stream>,
    terminate: Option<Stream>,
    hang_up: Option<Stream>,
    interrupts: u32,
}

impl Signals {
    /// Waits for the next signal.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            () = arrival(&mut self.interrupt) => Signal::SIGINT,
            () = arrival(&mut self.terminate) => Signal::SIGTERM,
            () = arrival(&mut self.hang_up) => Signal::SIGHUP,
        }
    }

    /// With a command the trace ends when the command does: Ctrl-C has reached it through the
    /// terminal, other signals are passed on to it. A second Ctrl-C ends the trace all the same.
    pub fn passed_on(&mut self, signal: Signal, command: Option<&Child>) -> bool {
        let Some(command) = command else { return false };
        if signal == Signal::SIGINT {
            self.interrupts += 1;
            return self.interrupts == 1;
        }
        pass_on(signal, command)
    }
}

/// Sends `signal` to the command; returns whether that was possible.
pub fn pass_on(signal: Signal, command: &Child) -> bool {
    let pid = command.id().and_then(|pid| i32::try_from(pid).ok());
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), signal).is_ok())
}

/// The status of a process that a signal keeps from its work.
#[must_use]
pub fn exit_status(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(1)
}

/// SIGUSR1, held back from this thread and from those that it starts from now on.
pub struct UserSignal(SigSet);

impl UserSignal {
    /// Holds it back. Threads that there are already would be ended by it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn hold() -> Result<Self> {
        let held: SigSet = [Signal::SIGUSR1].into_iter().collect();
        held.thread_block().context("hold SIGUSR1 back")?;
        Ok(Self(held))
    }

    /// Calls `act` whenever it comes, in a thread of its own.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn listen(self, act: impl Fn() + Send + 'static) -> Result<()> {
        let listen = move || {
            while self.0.wait().is_ok() {
                act();
            }
        };
        let started = thread::Builder::new().name("signals".to_owned()).spawn(listen);
        started.map(drop).context("listen for SIGUSR1")
    }
}

async fn arrival(stream: &mut Option<Stream>) {
    match stream {
        Some(stream) => {
            stream.recv().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_counts_from_128() {
        assert_eq!(exit_status(Signal::SIGINT), 130);
        assert_eq!(exit_status(Signal::SIGTERM), 143);
    }

    #[test]
    fn a_held_signal_is_seen_and_does_nothing() {
        let held = HeldSignals::new().unwrap();
        assert_eq!(held.arrived(), None);
        nix::sys::signal::raise(Signal::SIGHUP).unwrap();
        assert_eq!((held.arrived(), held.arrived()), (Some(Signal::SIGHUP), Some(Signal::SIGHUP)));
        held.before().thread_set_mask().unwrap();
    }
}
