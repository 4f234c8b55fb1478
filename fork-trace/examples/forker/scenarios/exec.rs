//! Children that execute a program.

use std::{
    ffi::{CString, c_char},
    iter,
    path::Path,
    ptr,
};

use crate::{
    attempt::{attempt, finish},
    call::{Call, Outcome, Skip},
    sys::{fork, script::ChildCall},
};

/// A program that does nothing, with its arguments.
struct Program {
    path: CString,
    words: Vec<CString>,
}

impl Program {
    /// `/bin/true`; forker itself where a small guest has none.
    fn find() -> Result<Self, Skip> {
        let own = std::env::current_exe().map_err(|error| Skip(format!("own path: {error}")))?;
        let common = Path::new("/bin/true");
        let path = if common.exists() { common } else { &own };
        let bytes = path.as_os_str().as_encoded_bytes();
        let path = CString::new(bytes).map_err(|error| Skip(format!("own path: {error}")))?;
        Ok(Self { words: vec![path.clone(), c"true".to_owned()], path })
    }

    /// The NULL-ended vector of arguments; lives no longer than the words.
    fn argv(&self) -> Vec<*mut c_char> {
        let words = self.words.iter().map(|word| word.as_ptr().cast_mut());
        words.chain(iter::once(ptr::null_mut())).collect()
    }
}

pub(crate) fn vfork_exec() -> Outcome {
    let program = Program::find()?;
    let (argv, envp) = (program.argv(), [ptr::null_mut()]);
    let exec = ChildCall::exec(program.path.as_ptr(), argv.as_ptr(), envp.as_ptr());
    finish(attempt(&Call::vfork(), || fork::vfork(&[exec, ChildCall::exit(127)])))
}

pub(crate) fn posix_spawn() -> Outcome {
    let program = Program::find()?;
    let (argv, envp) = (program.argv(), [ptr::null_mut()]);
    let (path, none) = (program.path.as_ptr(), ptr::null());
    let spawn = || {
        let mut child = 0;
        // SAFETY: the path and both vectors are NUL- and NULL-ended and live through the call.
        let errno = unsafe {
            libc::posix_spawn(&raw mut child, path, none, none.cast(), argv.as_ptr(), envp.as_ptr())
        };
        if errno == 0 { child } else { -errno }
    };
    finish(attempt(&Call::libc_spawn(), spawn))
}
