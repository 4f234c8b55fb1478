//! How often the kernel skipped programs of this process. It skips a program that already runs on
//! the same CPU, and the return of a probed function where all return slots of that function are in
//! use.
//!
//! This module asks the kernel about file descriptors and links, and knows nothing of what the
//! programs do.

use std::{
    collections::{BTreeMap, HashMap},
    os::fd::RawFd,
    str::FromStr,
};

use nix::libc;

use crate::host::descriptors;

/// KERNEL: `include/uapi/linux/bpf.h` `enum bpf_prog_type`.
const BPF_PROG_TYPE_KPROBE: u32 = 2;

/// The number of skipped runs of each program that had any. `programs` are names and descriptors.
/// On a kernel that does not show these numbers, no program has any.
///
/// KERNEL: kernel/bpf/syscall.c `bpf_prog_show_fdinfo` (5.12 and later) and
/// `bpf_perf_link_fill_kprobe` (6.7 and later).
#[must_use]
pub(super) fn by_program<'a>(
    programs: impl Iterator<Item = (&'a str, RawFd)>,
) -> BTreeMap<String, u64> {
    let mut missed = BTreeMap::new();
    let mut add = |name: &str, runs: u64| {
        if runs > 0 {
            *missed.entry(name.to_owned()).or_default() += runs;
        }
    };
    let mut probes = HashMap::new();
    for (name, fd) in programs {
        let Ok(info) = descriptors::info(fd) else { continue };
        add(name, value(&info, "recursion_misses").unwrap_or_default());
        if value(&info, "prog_type") == Some(BPF_PROG_TYPE_KPROBE)
            && let Some(id) = value::<u32>(&info, "prog_id")
        {
            probes.insert(id, name);
        }
    }
    // Only probes have such links; without any there is no need to read every descriptor.
    let links = if probes.is_empty() { Vec::new() } else { probe_links() };
    for (fd, info) in links {
        if let Some(name) = value(&info, "prog_id").and_then(|id: u32| probes.get(&id)) {
            add(name, of_link(fd).unwrap_or_default());
        }
    }
    missed
}

/// The value in the line `name:\tvalue`, if there is such a line.
pub(super) fn value<T: FromStr>(info: &str, name: &str) -> Option<T> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

/// The descriptors of this process that are links of kernel probes, each with the text that the
/// kernel shows of it. Up to 5.14 there are none, because a program is attached to the probe's
/// event itself.
fn probe_links() -> Vec<(RawFd, String)> {
    let is_link =
        |(_, info): &(_, String)| value::<String>(info, "link_type").as_deref() == Some("perf");
    descriptors::all().into_iter().filter(is_link).collect()
}

/// How often the kernel skipped the probe behind a link. For the probe of a return that includes
/// the returns for which there was no slot (`maxactive`).
///
/// KERNEL: `include/uapi/linux/bpf.h` `struct bpf_link_info`; `kernel/trace/trace_kprobe.c`
/// `trace_kprobe_missed`.
fn of_link(link: RawFd) -> Option<u64> {
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    const BPF_PERF_EVENT_KPROBE: u64 = 3;
    const BPF_PERF_EVENT_KRETPROBE: u64 = 4;
    const LINK_INFO_BYTES: u32 = 64;
    #[repr(C)]
    struct Ask {
        fd: u32,
        bytes: u32,
        to: u64,
    }
    // The words of 32 bits are: type of the link, its id, id of the program, padding, type of the
    // event, padding. The words of 64 bits that follow are: name of the function, its length and
    // the probe's offset, address, number of skipped runs, cookie.
    let mut info = [0_u64; LINK_INFO_BYTES as usize / 8];
    let to = info.as_mut_ptr() as u64;
    let mut ask = Ask { fd: u32::try_from(link).ok()?, bytes: LINK_INFO_BYTES, to };
    // SAFETY: the kernel writes at most `bytes` bytes to `info`, and to `ask` how many it wrote;
    // both outlive the call.
    let ret = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut ask, size_of::<Ask>())
    };
    let [.., event, _, _, _, missed, _] = info;
    let probe = matches!(event & 0xffff_ffff, BPF_PERF_EVENT_KPROBE | BPF_PERF_EVENT_KRETPROBE);
    (ret == 0 && probe).then_some(missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_whole_name() {
        let info = "pos:\t0\nprog_id:\t17\nprog_id_x:\t3\nrecursion_misses:\t2\n";
        assert_eq!(value(info, "prog_id"), Some(17));
        assert_eq!(value(info, "recursion_misses"), Some(2_u64));
        assert_eq!(value::<u32>(info, "prog"), None);
        assert_eq!(value::<u32>(info, "pos_"), None);
    }

    #[test]
    fn a_descriptor_that_is_no_link_has_no_skipped_runs() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        assert_eq!(of_link(fd), None);
        assert_eq!(by_program([("x", fd)].into_iter()), BTreeMap::new());
    }
}
