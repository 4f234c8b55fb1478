//! Arguments that the kernel refuses before it makes anything.

use super::why::{Refusal, clone_refused, clone3_refused};
use crate::{
    attempt::attempt,
    call::{Call, Note, Outcome},
    host,
    sys::{
        clone_args::{Clone3Size, CloneArgs},
        flag, fork,
    },
};

const THREAD_WITHOUT_SIGHAND: Refusal = Refusal::invalid("thread-without-sighand");

pub(crate) fn einval_thread() -> Outcome {
    clone_refused(flag::THREAD | flag::SIGCHLD, THREAD_WITHOUT_SIGHAND);
    Ok(())
}

pub(crate) fn einval_sighand() -> Outcome {
    clone_refused(flag::SIGHAND | flag::SIGCHLD, Refusal::invalid("sighand-without-vm"));
    Ok(())
}

pub(crate) fn einval_newns_fs() -> Outcome {
    clone_refused(flag::NEWNS | flag::FS | flag::SIGCHLD, Refusal::invalid("newns-and-fs"));
    Ok(())
}

pub(crate) fn einval_clone3_size() -> Outcome {
    let why = Refusal::invalid("struct-too-small");
    clone3_refused(&CloneArgs::new(0), Clone3Size::TooSmall, why);
    Ok(())
}

pub(crate) fn e2big_clone3() -> Outcome {
    let refused = |rule| {
        let why = Refusal(libc::E2BIG, "invalid-flags", rule);
        why.of(Call::clone3(&CloneArgs::new(0)))
    };
    let mut words = [0; 513];
    words[4] = flag::SIGCHLD;
    attempt(&refused("struct-larger-than-page"), || fork::clone3_words(&words, 4097));
    words[11] = 1;
    let call = refused("struct-tail-not-zero").note(Note::TailNotZero);
    attempt(&call, || fork::clone3_words(&words, 128));
    Ok(())
}

pub(crate) fn efault_clone3() -> Outcome {
    let why = Refusal(libc::EFAULT, "invalid-flags", "struct-unreadable");
    let call = why.of(Call::clone3(&CloneArgs::new(0).exit_signal(0)));
    attempt(&call.note(Note::FlagsUnknown), || fork::clone3_null(88));
    Ok(())
}

pub(crate) fn einval_clone3_exit_signal() -> Outcome {
    let late = host::release() >= (7, 1);
    let unknown = if late { "exit-signal-unknown-late" } else { "exit-signal-unknown" };
    for (exit_signal, rule) in [(65, unknown), (256, "exit-signal-too-large")] {
        let args = CloneArgs::new(0).exit_signal(exit_signal);
        clone3_refused(&args, Clone3Size::V2, Refusal::invalid(rule));
    }
    Ok(())
}

/// A refusal and a success by the same thread must not be taken for one another.
pub(crate) fn failed_then_ok() -> Outcome {
    clone_refused(flag::THREAD | flag::SIGCHLD, THREAD_WITHOUT_SIGHAND);
    attempt(&Call::clone(flag::SIGCHLD), || fork::clone(flag::SIGCHLD));
    Ok(())
}
