//! The scenarios of i386 system calls where the machine has none.

use crate::call::{Outcome, Skip};

fn none() -> Outcome {
    Err(Skip("this machine has no i386 system calls".to_owned()))
}

pub(crate) fn fork() -> Outcome {
    none()
}

pub(crate) fn vfork() -> Outcome {
    none()
}

pub(crate) fn clone() -> Outcome {
    none()
}

pub(crate) fn clone3() -> Outcome {
    none()
}

pub(crate) fn traps() -> Outcome {
    none()
}
