//! Forks that wait for memory: for a page that has to be read from a disk, and for pages of their control
//! group that have to be given up first.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    os::{linux::fs::MetadataExt as _, unix::fs::FileExt as _},
};

use crate::{
    call::Skip,
    held::{TIMES, Trouble, Truth, in_group, off_ns, truth, until},
    host::cgroup::Hierarchy,
    sys::{
        self,
        fork::{clone3_raw, libc_fork},
        memory::{is_in_memory, map_file, spread},
        trouble::major_faults,
    },
};

/// The first version of clone3's arguments has eight words; the fifth is the signal at the child's end.
const WORDS: usize = 8;
const EXIT_SIGNAL: usize = 4;
/// A page.
const PAGE: usize = 4096;
/// A disk that reads so slowly takes a quarter of a second for a page.
const BYTES_PER_S: usize = 4 * PAGE;

/// A clone3 whose arguments lie in a page of a file, which has to be read for it.
pub(crate) fn page_io() -> Result<Truth, Skip> {
    let skip = |errno| Skip::step("have a page read for a fork", errno);
    let hierarchy = Hierarchy::of("blkio").or_else(|_| Hierarchy::of("io"))?;
    let group = hierarchy.group().map_err(skip)?;
    let file = unnamed_file()?;
    let mut page = [0; PAGE];
    page[EXIT_SIGNAL * 8] = u8::try_from(libc::SIGCHLD).unwrap_or(0);
    file.write_all_at(&page, 0)
        .and_then(|()| file.sync_all())
        .map_err(sys::number)
        .map_err(skip)?;
    let device = file.metadata().map_err(sys::number).map_err(skip)?.st_dev();
    let device = format!("{}:{}", libc::major(device), libc::minor(device));
    let limited = if hierarchy.v1 {
        group.set("blkio.throttle.read_bps_device", &format!("{device} {BYTES_PER_S}"))
    } else {
        group.set("io.max", &format!("{device} rbps={BYTES_PER_S}"))
    };
    limited.map_err(|errno| Skip::step("slow down the disk of the temporary folder", errno))?;
    let trouble = Trouble::PageIo;
    in_group(
        trouble,
        &group,
        || Ok(()),
        || {
            let words: &[u64] = map_file(&file, WORDS)?;
            let before = major_faults();
            // SAFETY: no word but the signal is set, so there is no address among them.
            let made = truth(trouble, || unsafe { clone3_raw(words, size_of_val(words)) });
            // Where the page was in memory after all, nothing was waited for.
            if major_faults() == before { Err(libc::ENODATA) } else { made }
        },
    )
}

/// Pages of a file that are still to be written when the fork needs their room.
const DIRTY: usize = 64 << 20;
/// Mapped pages, each of which needs a page table of its own.
const TABLES: usize = 3000;
/// What the group has left, far less than the tables need.
const LEFT: u64 = 1 << 20;

/// A fork in a control group of memory that is full, mostly of pages that are to be written to a file.
pub(crate) fn reclaim() -> Result<Truth, Skip> {
    let hierarchy = Hierarchy::of("memory")?;
    let skip = |errno| Skip::step("fork in a full group", errno);
    let group = hierarchy.group().map_err(skip)?;
    let (usage, limit) = if hierarchy.v1 {
        ("memory.usage_in_bytes", "memory.limit_in_bytes")
    } else {
        ("memory.current", "memory.max")
    };
    let trouble = Trouble::Reclaim;
    let make = || {
        let mut file = unnamed_file()?;
        // The limit that the fork before has set.
        group.set(limit, "-1").or_else(|_| group.set(limit, "max")).map_err(skip)?;
        in_group(
            trouble,
            &group,
            || Ok(()),
            || {
                spread(TABLES)?;
                file.write_all(&vec![1; DIRTY]).map_err(sys::number)?;
                let used: u64 = group.number(usage)?;
                group.set(limit, &(used + LEFT).to_string())?;
                truth(trouble, libc_fork)
            },
        )
    };
    // A fast disk may have written much of it before the fork needs the room.
    let waited = |truth: &Truth| 2 * off_ns(truth) > 3 * truth.cpu_ns;
    let made = until(TIMES, waited, make)?;
    if waited(&made) {
        Ok(made)
    } else {
        Err(Skip("the disk writes pages faster than a fork needs their room".to_owned()))
    }
}

/// A file in the folder for temporary ones, which is gone when it is closed.
fn unnamed_file() -> Result<File, Skip> {
    let path = env::temp_dir().join(format!("forker-{}", sys::tgid()));
    let open = File::options().read(true).write(true).create_new(true).open(&path);
    let open = open.and_then(|open| fs::remove_file(&path).map(|()| open));
    let open = open.map_err(|error| Skip::step("make a file", sys::number(error)))?;
    if is_in_memory(&open) {
        return Err(Skip("the folder for temporary files is on no disk".to_owned()));
    }
    Ok(open)
}
