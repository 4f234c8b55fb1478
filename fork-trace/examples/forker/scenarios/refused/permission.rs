//! What the caller has no right to ask for.

use super::{
    held::stay_full,
    why::{NOBODY, Refusal, clone_refused, clone3_refused},
};
use crate::{
    attempt::{attempt, helper, in_child},
    call::{Call, Note, Outcome},
    host,
    sys::{
        self,
        clone_args::{Clone3Size, CloneArgs},
        flag,
        fork::{self, libc_fork},
        script::Leash,
    },
};

/// How long a tracer may take to look who has an id.
const LOOK_MS: u64 = 300;
/// The longest life of a member of a session without leader.
const HOLD_MS: u32 = 20_000;

pub(crate) fn mount_namespace() -> Outcome {
    helper(|| {
        if sys::is_root() {
            sys::become_user(NOBODY)?;
        }
        let why = Refusal(libc::EPERM, "permission", "namespace-without-admin");
        clone_refused(flag::NEWNS | flag::SIGCHLD, why);
        Ok(())
    })
}

pub(crate) fn user_namespace_in_chroot() -> Outcome {
    host::require_root()?;
    helper(|| {
        sys::chroot(c"/proc")?;
        let why = Refusal(libc::EPERM, "permission", "newuser-in-chroot");
        clone_refused(flag::NEWUSER | flag::SIGCHLD, why);
        Ok(())
    })
}

/// In a user namespace without any mapping of ids.
pub(crate) fn user_namespace_without_ids() -> Outcome {
    host::require_admin()?;
    helper(|| {
        sys::unshare(libc::CLONE_NEWUSER)?;
        let why = Refusal(libc::EPERM, "permission", "newuser-unmapped-ids");
        clone_refused(flag::NEWUSER | flag::SIGCHLD, why);
        Ok(())
    })
}

pub(crate) fn set_tid() -> Outcome {
    host::require_root()?;
    helper(|| {
        sys::become_user(NOBODY)?;
        let mut init = 1;
        let args = CloneArgs::new(0).set_tid(&mut init);
        let why = Refusal(libc::EPERM, "set-tid", "set-tid-not-permitted");
        clone3_refused(&args, Clone3Size::V2, why);
        Ok(())
    })
}

/// Whoever may choose a tid gets none that is taken.
pub(crate) fn taken_tid() -> Outcome {
    host::require_admin()?;
    let mut init = 1;
    let args = CloneArgs::new(0).set_tid(&mut init);
    clone3_refused(&args, Clone3Size::V2, Refusal(libc::EEXIST, "set-tid", "set-tid-taken"));
    Ok(())
}

/// Asks for an id that is taken, and stays until a tracer has seen by whom.
fn ask_for(id: i32) {
    let mut id = id;
    let args = CloneArgs::new(0).set_tid(&mut id);
    clone3_refused(&args, Clone3Size::V2, Refusal(libc::EEXIST, "set-tid", "set-tid-taken"));
    sys::sleep_ms(LOOK_MS);
}

/// An id is taken as long as a zombie has it, and then as long as its session has a member.
pub(crate) fn taken_without_process() -> Outcome {
    host::require_admin()?;
    helper(|| {
        let leash = Leash::new()?;
        let call = Call::libc_fork().note(Note::Helper);
        let leader = in_child(&call, true, libc_fork, || {
            sys::lead_session()?;
            let script = leash.script(HOLD_MS);
            let member = || fork::clone_scripted(flag::SIGCHLD, &script);
            attempt(&Call::clone(flag::SIGCHLD), member).tid().map(drop)
        });
        let leader = leader.tid()?;
        sys::await_zombie(leader)?;
        ask_for(leader);
        stay_full();
        sys::reap(leader);
        ask_for(leader);
        stay_full();
        Ok(())
    })
}
