//! What the caller has no right to ask for.

use super::why::{NOBODY, Refusal, clone_refused, clone3_refused};
use crate::{
    attempt::helper,
    call::Outcome,
    host,
    sys::{
        self,
        clone_args::{Clone3Size, CloneArgs},
        flag,
    },
};

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
        let why = Refusal(libc::EPERM, "permission", "");
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
