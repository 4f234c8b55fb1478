//! What a service manager is told: that tracing has begun, that the loop is alive, that it ends. And what others in
//! this process want to know of the loop.
//!
//! It is systemd's protocol: a datagram to the socket that `NOTIFY_SOCKET` names, `sd_notify(3)`.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::error::UserError;

/// A loop that was not seen for so long stands still.
const DEAD: Duration = Duration::from_secs(10);

/// The variable that names the socket.
const SOCKET: &str = "NOTIFY_SOCKET";

/// What the loop and others in this process tell each other.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    /// When the loop was last seen, in milliseconds since then.
    seen_ms: AtomicU64,
    stuck: AtomicU64,
    /// Somebody wants tracing to end.
    is_over: AtomicBool,
}

impl Pulse {
    /// Whether the loop was seen a moment ago.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let seen = Duration::from_millis(self.seen_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(seen) < DEAD
    }

    /// Asks for the end of tracing, which comes when the loop next looks.
    pub fn ask_for_end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Attempts that had lasted for a second or more when the loop last looked.
    #[must_use]
    pub fn stuck(&self) -> u64 {
        self.stuck.load(Ordering::Relaxed)
    }
}

/// A service: who is told of it, and how often.
#[derive(Debug)]
pub struct Service {
    manager: Option<UnixDatagram>,
    /// How often the manager wants to hear of the loop.
    watchdog: Option<Duration>,
    told: Instant,
    pulse: Arc<Pulse>,
}

impl Service {
    /// As the environment says, which a service manager makes.
    ///
    /// # Errors
    /// [`UserError::Environment`]: the socket that it names is not there.
    pub fn of_environment() -> Result<Self, UserError> {
        let manager = match env::var_os(SOCKET).filter(|name| !name.is_empty()) {
            Some(name) => Some(connect(&name).map_err(|error| UserError::Environment {
                name: SOCKET,
                value: name.to_string_lossy().into_owned(),
                reason: error.to_string(),
            })?),
            None => None,
        };
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        // It may be meant for the process that started this one.
        let mine = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| mine && *us > 0);
        Ok(Self::new(manager, watchdog.map(Duration::from_micros)))
    }

    /// One of which no manager is told.
    #[must_use]
    pub fn unmanaged() -> Self {
        Self::new(None, None)
    }

    fn new(manager: Option<UnixDatagram>, watchdog: Option<Duration>) -> Self {
        let now = Instant::now();
        let pulse = Pulse {
            began: now,
            seen_ms: AtomicU64::new(0),
            stuck: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        };
        Self { manager, watchdog, told: now, pulse: Arc::new(pulse) }
    }

    /// What the loop and others in this process tell each other.
    #[must_use]
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Whether somebody in this process asked for the end of tracing.
    pub(super) fn is_over(&self) -> bool {
        self.pulse.is_over.load(Ordering::Relaxed)
    }

    /// Tracing has begun.
    pub fn ready(&mut self) {
        self.tell("READY=1");
        self.told = Instant::now();
    }

    /// The loop is alive. It has to come here more often than every second.
    pub(super) fn beat(&mut self, stuck: usize) {
        let seen = u64::try_from(self.pulse.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.pulse.seen_ms.store(seen, Ordering::Relaxed);
        self.pulse.stuck.store(u64::try_from(stuck).unwrap_or(u64::MAX), Ordering::Relaxed);
        if self.watchdog.is_some_and(|most| self.told.elapsed() >= most / 2) {
            self.tell("WATCHDOG=1");
            self.told = Instant::now();
        }
    }

    /// Tracing ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, what: &str) {
        if let Some(manager) = &self.manager
            && let Err(error) = manager.send(what.as_bytes())
        {
            log::info!("tell the service manager {what}: {error}");
        }
    }
}

/// A name that begins with `@` is no file.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_at_half_of_its_time() {
        let name = format!("fork-trace-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        manager.set_nonblocking(true).unwrap();
        let heard = || {
            let mut bytes = [0; 64];
            let length = manager.recv(&mut bytes).ok()?;
            Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
        };
        let socket = connect(OsStr::new(&format!("@{name}"))).unwrap();
        let mut service = Service::new(Some(socket), Some(Duration::from_secs(2)));
        service.ready();
        assert_eq!(heard().as_deref(), Some("READY=1"));
        service.beat(3);
        assert_eq!((heard(), service.pulse().stuck()), (None, 3));
        service.told = service.told.checked_sub(Duration::from_secs(1)).unwrap();
        service.beat(0);
        service.beat(0);
        assert_eq!(heard().as_deref(), Some("WATCHDOG=1"));
        assert_eq!((heard(), service.pulse().is_alive()), (None, true));
        service.stopping();
        assert_eq!(heard().as_deref(), Some("STOPPING=1"));
        assert!(connect(OsStr::new("@fork-trace-nobody")).is_err());
    }

    #[test]
    fn a_manager_that_does_not_listen_holds_nothing_up() {
        let folder = env::temp_dir().join(format!("fork-trace-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&folder).unwrap();
        let mut service = Service::new(Some(connect(folder.as_os_str()).unwrap()), None);
        for _ in 0..10_000 {
            service.ready();
        }
        drop(manager);
        service.stopping();
        std::fs::remove_file(&folder).unwrap();
    }
}
