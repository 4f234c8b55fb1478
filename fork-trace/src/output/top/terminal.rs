//! The terminal: taken over, and given back whatever happens.

use std::{
    io::{self, IsTerminal as _, Write as _},
    os::fd::AsFd as _,
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use caps::Capability;
use ratatui::{
    backend::CrosstermBackend,
    buffer::Buffer,
    crossterm::{
        cursor::Show,
        queue,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};

use crate::{
    error::UserError,
    output::{capabilities, files::Standard},
};

/// Whether the terminal is taken over.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Looks whether standard output is a terminal.
///
/// # Errors
/// [`UserError::NoTerminal`].
pub fn check() -> Result<(), UserError> {
    if Standard::output().as_fd().is_terminal() { Ok(()) } else { Err(UserError::NoTerminal) }
}

/// Bytes for the terminal, written all at once.
type Screen = ratatui::Terminal<CrosstermBackend<io::BufWriter<Standard>>>;

/// A terminal that is taken over. It is given back when this is dropped, and by a panic of any thread.
pub(super) struct Terminal(Screen);

impl Terminal {
    /// Takes it over.
    pub(super) fn enter() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |about| {
                give_back();
                before(about);
            }));
        });
        IS_TAKEN.store(true, Ordering::SeqCst);
        let entered = enable_raw_mode().and_then(|()| {
            let mut to = Standard::output();
            queue!(to, EnterAlternateScreen)?;
            let room = io::BufWriter::with_capacity(1 << 16, to);
            ratatui::Terminal::new(CrosstermBackend::new(room))
        });
        if entered.is_err() {
            give_back();
        }
        entered.map(Self)
    }

    /// Draws a picture; only what is new of it is written.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Buffer)) -> io::Result<()> {
        self.0.draw(|frame| draw(frame.buffer_mut())).map(drop)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, once.
fn give_back() {
    if !IS_TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut to = Standard::output();
    // Nobody is there any more: nothing to be done.
    queue!(to, LeaveAlternateScreen, Show).and_then(|()| to.flush()).ok();
    disable_raw_mode().ok();
}

/// Gives back what needs nothing to be written: a terminal that takes nothing echoes what is typed again.
pub(super) fn give_back_input() {
    IS_TAKEN.store(false, Ordering::SeqCst);
    disable_raw_mode().ok();
}

/// Gives up the capabilities that neither files of recordings nor a look at other processes need.
pub(super) fn drop_capabilities() {
    const KEPT: [Capability; 5] = [
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_DAC_READ_SEARCH,
        Capability::CAP_FOWNER,
        Capability::CAP_SYS_PTRACE,
    ];
    capabilities::keep(&KEPT, "top");
}
