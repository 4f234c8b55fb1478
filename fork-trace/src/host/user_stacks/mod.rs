//! Addresses on the stack of a caller to files and functions.
//!
//! A caller is often gone by the time when its stack is shown, and with it what it had mapped. So there are
//! three ways to the file of a frame, and each works alone:
//!
//! - the kernel tells the build id of the file and the place in it. Files are known by their build ids from the
//!   processes that ran when the trace began, and from every process whose mappings were read since;
//! - the mappings of the caller, if it runs the same program still. They are remembered: a child has those of
//!   its parent;
//! - the file of the caller's program, whose code begins where the kernel side says.
//!
//! A file counts only with the inode number that the kernel tells. Everything is bounded, and starts anew when
//! it is full.

mod lines;
mod maps;
mod module;
mod names;
mod perf_map;

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use foldhash::HashMap;
use fork_trace_common::stack::{Frame as Raw, status};

use crate::{
    event::{
        bytes::{bytes, hex, text},
        stack::Frame,
    },
    host::{
        process::{numbers, stat::Stat},
        user_stacks::{
            maps::Mapping,
            module::{BuildId, Module, Place},
            perf_map::PerfMap,
        },
    },
};

/// Programs whose mappings are remembered.
const MOST_IMAGES: usize = 512;
/// Files that are known.
const MOST_MODULES: usize = 512;
/// Bytes of all symbols together.
const MOST_BYTES: usize = 256 << 20;
/// Files of running processes that are listed when the trace begins.
const MOST_LISTED: usize = 4096;
/// Mappings that are read for each batch of records.
const LOOKUPS: u32 = 256;
/// How long what was read of a process holds, where it lacks an address.
const HOLDS: Duration = Duration::from_secs(1);
/// No kernel lets a program use addresses from here on.
/// KERNEL: `TASK_SIZE_MAX` of each machine.
const END_OF_USER: u64 = 1 << 56;

/// Whose stack it is.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Its process id in the mounted `/proc`; 0: none.
    pub proc_pid: u32,
    /// Its process id in its own pid namespace.
    pub ns_pid: u32,
    /// Its user.
    pub uid: u32,
    /// The path of its program.
    pub exe: Option<&'a str>,
    /// Where the program's code and its first stack begin, and the inode number of its file; 0: not known.
    pub image: [u64; 3],
}

/// Finds files and functions.
#[derive(Default)]
pub struct UserStacks {
    modules: Vec<Module>,
    /// Files by device and inode number.
    by_file: HashMap<(u64, u64), usize>,
    by_build_id: HashMap<BuildId, usize>,
    images: HashMap<[u64; 3], Image>,
    /// Files that running processes have mapped, and that were not looked at.
    listed: Vec<(PathBuf, Mapping)>,
    lookups: u32,
}

/// One run of a program.
#[derive(Default)]
struct Image {
    /// What it has mapped, where that was read, and the file of each.
    mappings: Vec<(Mapping, Option<usize>)>,
    /// When that was last tried.
    read_at: Option<Instant>,
    /// The file of its program, once it was looked for.
    exe: Option<Option<usize>>,
    jit: Option<(PerfMap, Instant)>,
}

impl UserStacks {
    /// Lists the files that running processes have mapped.
    #[must_use]
    pub fn new() -> Self {
        Self { listed: listed(), ..Self::default() }
    }

    /// A new batch begins.
    pub fn next_batch(&mut self) {
        self.lookups = 0;
        let bytes: usize = self.modules.iter().map(Module::bytes).sum();
        if self.modules.len() >= MOST_MODULES || bytes > MOST_BYTES {
            *self = Self::new();
        }
    }

    /// The frames of a stack, up to the first that is known to be none: code without frame pointers leaves
    /// something else where its caller's would be.
    pub fn frames(&mut self, caller: &Caller<'_>, raw: &[Raw]) -> Vec<Frame> {
        if self.images.len() == MOST_IMAGES && !self.images.contains_key(&caller.image) {
            self.images.clear();
        }
        let mut image = self.images.remove(&caller.image).unwrap_or_default();
        let frames = raw.iter().map_while(|raw| self.frame(caller, &mut image, raw)).collect();
        if caller.image != [0; 3] {
            self.images.insert(caller.image, image);
        }
        frames
    }

    fn frame(&mut self, caller: &Caller<'_>, image: &mut Image, raw: &Raw) -> Option<Frame> {
        match raw.status {
            status::BUILD_ID => match self.with_build_id(caller, image, &raw.build_id) {
                Some(module) => self.in_module(module, raw.at),
                None => Some(Frame {
                    build_id: Some(written(&raw.build_id)),
                    offset: raw.at,
                    ..Frame::default()
                }),
            },
            status::ADDRESS if (1..END_OF_USER).contains(&raw.at) => {
                self.at_address(caller, image, raw.at)
            }
            _ => None,
        }
    }

    /// The frame at a place of a file; `None` if no code is there.
    fn in_module(&mut self, module: usize, offset: u64) -> Option<Frame> {
        let module = self.modules.get_mut(module)?;
        let Place { function, file, line } = module.place(offset)?;
        let module = Some(module.name.clone());
        Some(Frame { function, module, offset, file, line, ..Frame::default() })
    }

    fn at_address(
        &mut self,
        caller: &Caller<'_>,
        image: &mut Image,
        address: u64,
    ) -> Option<Frame> {
        let plain = Frame { offset: address, ..Frame::default() };
        let Some(place) = self.mapping(caller, image, address) else {
            // Where its mappings are known, it lies in none of them.
            if !image.mappings.is_empty() {
                return None;
            }
            let exe = self.exe(caller, image);
            let offset = exe.and_then(|exe| {
                let module = self.modules.get(exe)?;
                Some((exe, module.offset(address, caller.image[0])?))
            });
            return match offset {
                Some((exe, offset)) => self.in_module(exe, offset),
                None => Some(plain),
            };
        };
        let (mapping, module) = image.mappings.get_mut(place)?;
        if let Some(path) = mapping.path() {
            let offset = address - mapping.start + mapping.offset;
            let found = module.or_else(|| self.open(caller.proc_pid, path, mapping.inode));
            *module = found;
            return match found {
                Some(module) => self.in_module(module, offset),
                None => Some(Frame { module: Some(text(path).into()), offset, ..plain }),
            };
        }
        if mapping.name.starts_with(b"[") {
            let module = Some(text(&mapping.name).into());
            return Some(Frame { module, offset: address - mapping.start, ..plain });
        }
        let function = self.jit(caller, image, address);
        Some(Frame { function, ..plain })
    }

    /// The place of the mapping that the byte before `address` lies in.
    fn mapping(&mut self, caller: &Caller<'_>, image: &mut Image, address: u64) -> Option<usize> {
        let place = |image: &Image| {
            let mut mappings = image.mappings.iter();
            mappings.position(|(mapping, _)| (mapping.start..mapping.end).contains(&(address - 1)))
        };
        place(image).or_else(|| {
            self.read_mappings(caller, image);
            place(image)
        })
    }

    /// Reads what the caller has mapped, if it runs the same program still and that was not read a moment ago.
    fn read_mappings(&mut self, caller: &Caller<'_>, image: &mut Image) {
        let is_fresh = image.read_at.is_some_and(|at| at.elapsed() < HOLDS);
        if is_fresh || caller.proc_pid == 0 || caller.image[0] == 0 || self.lookups == LOOKUPS {
            return;
        }
        self.lookups += 1;
        image.read_at = Some(Instant::now());
        let Some(mappings) = maps::of_process(caller.proc_pid) else { return };
        // Looked at after the mappings, this says whose they were: no process runs its old program again.
        let stat = Stat::read(caller.proc_pid);
        let is_same = stat.is_some_and(|stat| {
            let [start_code, start_stack, _] = caller.image.map(Some);
            stat.start_code == start_code && stat.start_stack == start_stack
        });
        if is_same {
            image.mappings = mappings.into_iter().map(|mapping| (mapping, None)).collect();
        }
    }

    /// The file with this build id, if it is known or the caller leads to it.
    fn with_build_id(
        &mut self,
        caller: &Caller<'_>,
        image: &mut Image,
        id: &BuildId,
    ) -> Option<usize> {
        if let Some(known) = self.by_build_id.get(id) {
            return Some(*known);
        }
        self.exe(caller, image);
        if let Some(known) = self.by_build_id.get(id) {
            return Some(*known);
        }
        self.read_mappings(caller, image);
        for (mapping, module) in &mut image.mappings {
            if module.is_none()
                && let Some(path) = mapping.path()
            {
                *module = self.open(caller.proc_pid, path, mapping.inode);
            }
        }
        while !self.by_build_id.contains_key(id)
            && let Some((path, mapping)) = self.listed.pop()
        {
            self.add(&path, mapping.inode, mapping.path().unwrap_or_default());
        }
        self.by_build_id.get(id).copied()
    }

    /// The file of the caller's program.
    fn exe(&mut self, caller: &Caller<'_>, image: &mut Image) -> Option<usize> {
        *image.exe.get_or_insert_with(|| {
            let inode = caller.image[2];
            let path = bytes(caller.exe.filter(|_| inode != 0)?);
            let path = path.strip_suffix(b" (deleted)").unwrap_or(&path);
            self.open(caller.proc_pid, path, inode)
        })
    }

    /// The file at `path`, as a process sees it, if it has this inode number.
    fn open(&mut self, proc_pid: u32, path: &[u8], inode: u64) -> Option<usize> {
        let plain = Path::new(OsStr::from_bytes(path));
        self.add(plain, inode, path).or_else(|| {
            // It has another root, or another file system is mounted there.
            let below = plain.strip_prefix("/").ok()?;
            self.add(&root(proc_pid).join(below), inode, path)
        })
    }

    fn add(&mut self, path: &Path, inode: u64, name: &[u8]) -> Option<usize> {
        if self.modules.len() >= MOST_MODULES {
            return None;
        }
        let (file, module) = Module::open(path, inode, name)?;
        if let Some(known) = self.by_file.get(&file) {
            return Some(*known);
        }
        let place = self.modules.len();
        if let Some(id) = module.build_id {
            self.by_build_id.entry(id).or_insert(place);
        }
        self.modules.push(module);
        self.by_file.insert(file, place);
        Some(place)
    }

    /// The function that the caller's runtime has made at an address, as it tells itself.
    fn jit(
        &mut self,
        caller: &Caller<'_>,
        image: &mut Image,
        address: u64,
    ) -> Option<std::sync::Arc<str>> {
        let name = |image: &Image| {
            let (map, _) = image.jit.as_ref()?;
            map.name(address - 1).map(Into::into)
        };
        let found = name(image);
        let is_fresh = image.jit.as_ref().is_some_and(|(_, at)| at.elapsed() < HOLDS);
        if found.is_some() || is_fresh || caller.proc_pid == 0 || self.lookups == LOOKUPS {
            return found;
        }
        self.lookups += 1;
        let map = PerfMap::of_process(&root(caller.proc_pid), caller.ns_pid, caller.uid);
        image.jit = Some((map, Instant::now()));
        name(image)
    }
}

/// The root of a process.
fn root(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root"))
}

/// The files whose code running processes have mapped, each once.
fn listed() -> Vec<(PathBuf, Mapping)> {
    let mut seen = HashMap::default();
    for pid in numbers("/proc").unwrap_or_default() {
        for mapping in maps::of_process(pid).into_iter().flatten() {
            let Some(path) = mapping.path() else { continue };
            let path = Path::new(OsStr::from_bytes(path)).to_owned();
            let key = (mapping.inode, path);
            if seen.len() < MOST_LISTED && !seen.contains_key(&key) {
                seen.insert(key, (pid, mapping));
            }
        }
    }
    // What lies at the same path here is there for as long as the trace lasts.
    let both = seen.into_iter().flat_map(|((_, path), (pid, mapping))| {
        let below = path.strip_prefix("/").map(|below| root(pid).join(below));
        [below.ok(), Some(path)].into_iter().flatten().map(move |path| (path, mapping.clone()))
    });
    both.collect()
}

/// A build id as tools write it.
fn written(id: &BuildId) -> String {
    let end = id.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    hex(id.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A caller with the mappings of this process.
    fn own(proc_pid: u32) -> Caller<'static> {
        let stat = Stat::read(std::process::id()).unwrap();
        let path = std::env::current_exe().unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap());
        let exe = Some(&*path.to_str().unwrap().to_owned().leak());
        let image = [stat.start_code.unwrap(), stat.start_stack.unwrap(), inode];
        Caller { proc_pid, ns_pid: proc_pid, uid: 0, exe, image }
    }

    #[inline(never)]
    fn marked() -> u64 {
        std::hint::black_box(1)
    }

    fn address(at: u64) -> Raw {
        Raw { status: status::ADDRESS, build_id: [0; 20], at }
    }

    /// A return address in [`marked`].
    fn in_marked() -> Raw {
        address(marked as *const () as u64 + marked())
    }

    fn names(frames: &[Frame]) -> Vec<String> {
        frames.iter().map(|frame| frame.name().into_owned()).collect()
    }

    #[test]
    fn a_frame_has_a_name_with_and_without_its_process() {
        for pid in [std::process::id(), 0, u32::MAX] {
            let mut stacks = UserStacks::default();
            let frames = stacks.frames(&own(pid), &[in_marked(), in_marked()]);
            assert_eq!(frames.len(), 2, "{pid}");
            assert!(names(&frames)[0].ends_with("user_stacks::tests::marked"), "{frames:?}");
            assert_eq!(frames[0].module.as_deref(), own(pid).exe);
            assert!(frames[0].offset > 0 && frames[0].build_id.is_none());
        }
    }

    #[test]
    fn the_mappings_of_a_program_serve_its_children_too() {
        let mut stacks = UserStacks::default();
        let libc = libc_address();
        let seen = stacks.frames(&own(std::process::id()), &[libc]);
        assert!(seen[0].module.as_deref().unwrap().contains("libc"), "{seen:?}");
        // The child is gone.
        assert_eq!(stacks.frames(&own(u32::MAX), &[libc]), seen);
        let unknown = UserStacks::default().frames(&own(u32::MAX), &[libc]);
        assert_eq!(unknown, [Frame { offset: libc.at, ..Frame::default() }]);
    }

    fn libc_address() -> Raw {
        let own = maps::of_process(std::process::id()).unwrap();
        let libc = own.iter().find(|map| map.name.windows(7).any(|word| word == b"libc.so"));
        address(libc.unwrap().start + 0x100)
    }

    #[test]
    fn a_stack_ends_where_no_code_is() {
        let mut stacks = UserStacks::default();
        let local = 7_u64;
        let data = address(std::ptr::from_ref(&local).addr() as u64);
        let frames = stacks.frames(&own(std::process::id()), &[in_marked(), data, in_marked()]);
        assert_eq!(frames.len(), 1, "{frames:?}");
        for none in [address(0), address(u64::MAX), Raw::NONE] {
            assert_eq!(stacks.frames(&own(std::process::id()), &[none]), []);
        }
    }

    #[test]
    fn another_program_at_that_path_gives_no_name() {
        let mut caller = own(u32::MAX);
        caller.image[2] += 1;
        let frames = UserStacks::default().frames(&caller, &[in_marked()]);
        assert_eq!(names(&frames), ["[unknown]"]);
        let mut caller = own(std::process::id());
        caller.image[1] += 1;
        caller.exe = None;
        let frames = UserStacks::default().frames(&caller, &[in_marked()]);
        assert_eq!(names(&frames), ["[unknown]"], "it has run another program since");
    }

    #[test]
    fn a_build_id_leads_to_the_file_that_some_process_has_mapped() {
        let mut stacks = UserStacks::new();
        let libc = libc_address();
        let frame = &stacks.frames(&own(std::process::id()), &[libc])[0];
        let place =
            stacks.modules.iter().position(|module| Some(&module.name) == frame.module.as_ref());
        let Some(id) = stacks.modules[place.unwrap()].build_id else { return };
        let raw = Raw { status: status::BUILD_ID, build_id: id, at: frame.offset };
        assert_eq!(UserStacks::new().frames(&own(u32::MAX), &[raw])[0].module, frame.module);
        let unknown = UserStacks::default().frames(&own(u32::MAX), &[raw]);
        assert_eq!(
            (unknown[0].build_id.as_deref(), unknown[0].offset),
            (Some(&*written(&id)), raw.at)
        );
    }

    #[test]
    fn code_that_a_runtime_makes_has_the_name_that_it_tells() {
        const SIZE: usize = 4096;
        let rights = libc::PROT_READ | libc::PROT_EXEC;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: nobody uses the memory.
        let made = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, rights, kind, -1, 0) };
        let start = made.addr() as u64;
        let pid = std::process::id();
        let file = PathBuf::from(format!("/tmp/perf-{pid}.map"));
        std::fs::write(&file, format!("{start:x} 10 py::work:/srv/a.py\n")).unwrap();
        let caller = Caller { uid: nix::unistd::Uid::effective().as_raw(), ..own(pid) };
        let mut stacks = UserStacks::default();
        let frames = stacks.frames(&caller, &[address(start + 4), address(start + 64)]);
        std::fs::remove_file(file).unwrap();
        assert_eq!(names(&frames), ["py::work:/srv/a.py", "[unknown]"]);
        assert_eq!((&frames[0].module, frames[0].offset), (&None, start + 4));
    }
}
