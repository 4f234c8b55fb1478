//! What fork-trace needs around it, before it looks at the kernel: file systems, descriptors, and
//! namespaces in which it can work.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::{
    error::UserError,
    host::{descriptors, namespaces},
};

/// Open files without which nothing can be traced: maps, programs, their links, and outputs.
const FILES: rlim_t = 128;

/// Raises this process's limit of open files as far as it may, and looks for what is missing.
///
/// # Errors
/// [`UserError::Surroundings`]: what is missing, and how to get it.
pub fn check() -> Result<(), UserError> {
    file_systems()?;
    files()?;
    if !namespaces::is_initial("user") {
        return Err(UserError::Surroundings {
            what: "this process is in a user namespace of its own: its capabilities do not count \
                   for tracing, whatever they are"
                .to_owned(),
            cure:
                "run it as root outside of that namespace: on the host itself, or in a container \
                   without user namespace (docker run --userns=host; not rootless)"
                    .to_owned(),
        });
    }
    if namespaces::children_are_elsewhere("pid") {
        return Err(UserError::Surroundings {
            what:
                "the children of this process would be in another pid namespace than itself, and \
                   so it can have no threads"
                    .to_owned(),
            cure: "start it from a process that is in that namespace: unshare --pid --fork \
                   --mount-proc fork-trace ..."
                .to_owned(),
        });
    }
    if namespaces::children_are_elsewhere("time") {
        return Err(UserError::Surroundings {
            what: "this process is in another time namespace than its children will be: how its \
                   clock differs from the kernel's cannot be known"
                .to_owned(),
            cure: "start it from a process that is in the new namespace: unshare --time --fork \
                   fork-trace ..."
                .to_owned(),
        });
    }
    Ok(())
}

fn file_systems() -> Result<(), UserError> {
    let missing = |what: &str, cure: &str| {
        Err(UserError::Surroundings { what: what.to_owned(), cure: cure.to_owned() })
    };
    if !exists("/proc/self/status") {
        // KERNEL: fs/proc/self.c: the link leads nowhere for one who has no id in that namespace.
        return match exists("/proc/version") {
            true => missing(
                "the /proc mounted here belongs to a pid namespace in which this process has no id",
                "mount that of its own: unshare --mount sh -c 'mount -t proc proc /proc && \
                 fork-trace ...'",
            ),
            false => missing("/proc is not mounted here", "mount it: mount -t proc proc /proc"),
        };
    }
    if !exists("/sys/kernel") {
        return missing("/sys is not mounted here", "mount it: mount -t sysfs sysfs /sys");
    }
    Ok(())
}

fn exists(path: &str) -> bool {
    fs::exists(path).unwrap_or(false)
}

fn files() -> Result<(), UserError> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    if hard < FILES {
        return Err(UserError::TooFewFiles { limit: hard });
    }
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        descriptors::keep_limit(soft);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_is_no_stranger_here() {
        use crate::host::namespaces::is_initial;
        assert_eq!(super::check().is_ok(), is_initial("user"));
    }
}
