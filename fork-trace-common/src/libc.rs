//! The C library's side of a fork: which of its functions are probed, and the bytes of a
//! [`LibcRecord`].
//!
//! A wrapper is a function that a program calls to make a task. There is one record for each run of
//! a wrapper in the caller, and one more in a child that returns from it too. All times are
//! `CLOCK_MONOTONIC` nanoseconds. Every byte is zeroed before it is filled.

use crate::{record::TaskIds, stage::Stage};

macro_rules! parts {
    ($($(#[doc = $doc:literal])* $part:ident = $stage:ident;)*) => {
        /// A part of a wrapper: a place in [`LibcRecord::parts`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Part { $($(#[doc = $doc])* $part,)* }

        impl Part {
            /// All.
            pub const ALL: &[Self] = &[$(Self::$part),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its stage.
            #[must_use]
            pub const fn stage(self) -> Stage {
                match self { $(Self::$part => Stage::$stage,)* }
            }
        }
    };
}

parts! {
    /// The handlers that run before the call.
    PreforkHandlers = RunPreforkHandlers;
    /// The state of the name service is saved.
    NssPrepare = NssPrepare;
    /// The list of stdio streams is locked.
    StdioLock = StdioLock;
    /// The arenas of malloc are locked.
    MallocLock = MallocLock;
    /// `_Fork`, which makes the call. In the child only its return is seen.
    InnerFork = LibcSyscall;
    /// The arenas of malloc are unlocked.
    MallocUnlock = MallocUnlock;
    /// The list of stdio streams is unlocked.
    StdioUnlock = StdioUnlock;
    /// The handlers that run after the call.
    PostforkHandlers = RunPostforkHandlers;
    /// The arenas of malloc in the child.
    ChildMallocUnlock = ChildMallocUnlock;
    /// The list of stdio streams in the child.
    ChildStdioReset = ChildStdioReset;
    /// The name service in the child.
    ChildNss = ChildNss;
    /// The handlers that run in the child.
    ChildHandlers = ChildHandlers;
}

/// What a probed function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A function that programs call to make a task.
    Wrapper,
    /// A wrapper of which only the entry is probed: its return comes right after the call's, and
    /// the stack from which a `vfork` returns is the child's too.
    EntryOnly,
    /// A wrapper that is a part of `fork` as well.
    Both(Part),
    /// A part of `fork`.
    Part(Part),
    /// What runs the handlers after the call: a part of `fork` in the caller, and another one in the child.
    HandlersAfter,
    /// What runs all of them, in a glibc before 2.36: also those before the call.
    Handlers,
    /// What registers handlers. Only its entry is probed.
    Registers,
}

impl Role {
    /// Whether it is this part of `fork`, in one place or another.
    #[must_use]
    pub fn is(self, part: Part) -> bool {
        match self {
            Self::Wrapper | Self::EntryOnly | Self::Registers => false,
            Self::Both(own) | Self::Part(own) => own == part,
            Self::HandlersAfter => matches!(part, Part::PostforkHandlers | Part::ChildHandlers),
            Self::Handlers => part == Part::PreforkHandlers || Self::HandlersAfter.is(part),
        }
    }

    /// Whether programs call it to make a task.
    #[must_use]
    pub const fn is_wrapper(self) -> bool {
        matches!(self, Self::Wrapper | Self::EntryOnly | Self::Both(_))
    }
}

/// One probed function of a C library.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The function.
    pub function: LibcFunction,
    /// Its name in the names of the programs.
    pub id: &'static str,
    /// The symbols that it has in one library or another.
    pub symbols: &'static [&'static str],
    /// What it is.
    pub role: Role,
}

/// Hands every row to macro `$m` as `Function = id [symbols] role;`.
#[macro_export]
macro_rules! for_each_libc_function {
    ($m:ident) => {
        $m! {
            Fork = fork ["fork", "__fork", "__libc_fork"] Wrapper;
            InnerFork = inner_fork ["_Fork"] Both(Part::InnerFork);
            Vfork = vfork ["vfork", "__vfork"] EntryOnly;
            PosixSpawn = posix_spawn ["posix_spawn"] Wrapper;
            PosixSpawnp = posix_spawnp ["posix_spawnp"] Wrapper;
            PthreadCreate = pthread_create ["pthread_create"] Wrapper;
            Clone = clone ["clone", "__clone"] EntryOnly;
            PreforkHandlers = prefork_handlers ["__run_prefork_handlers"]
                Part(Part::PreforkHandlers);
            PostforkHandlers = postfork_handlers ["__run_postfork_handlers"] HandlersAfter;
            ForkHandlers = fork_handlers ["__run_fork_handlers"] Handlers;
            NssPrepare = nss_prepare ["__nss_database_fork_prepare_parent"] Part(Part::NssPrepare);
            StdioLock = stdio_lock ["_IO_list_lock"] Part(Part::StdioLock);
            MallocLock = malloc_lock ["__malloc_fork_lock_parent"] Part(Part::MallocLock);
            MallocUnlock = malloc_unlock ["__malloc_fork_unlock_parent"] Part(Part::MallocUnlock);
            StdioUnlock = stdio_unlock ["_IO_list_unlock"] Part(Part::StdioUnlock);
            ChildMallocUnlock = child_malloc_unlock ["__malloc_fork_unlock_child"]
                Part(Part::ChildMallocUnlock);
            ChildStdioReset = child_stdio_reset ["_IO_list_resetlock"] Part(Part::ChildStdioReset);
            ChildNss = child_nss ["__nss_database_fork_subprocess"] Part(Part::ChildNss);
            RegisterAtfork = register_atfork ["__register_atfork", "pthread_atfork"] Registers;
        }
    };
}

macro_rules! table {
    ($($function:ident = $id:ident [$($symbol:literal),+] $role:ident $(($part:expr))?;)*) => {
        /// A function of a C library that is probed; the discriminant is its place in [`FUNCTIONS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum LibcFunction { $(#[doc = concat!("`", stringify!($id), "`.")] $function,)* }

        /// Every function that is probed.
        pub const FUNCTIONS: &[Row] = &[$(Row {
            function: LibcFunction::$function,
            id: stringify!($id),
            symbols: &[$($symbol),+],
            role: Role::$role $(($part))?,
        },)*];
    };
}

for_each_libc_function!(table);

impl LibcFunction {
    /// The function's row in the table.
    #[must_use]
    #[expect(
        clippy::indexing_slicing,
        reason = "enum and table come from one macro: each discriminant is a place in the table"
    )]
    pub const fn row(self) -> &'static Row {
        &FUNCTIONS[self as usize]
    }

    /// The function with this discriminant.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        FUNCTIONS.get(number as usize).map(|row| row.function)
    }

    /// The name by which programs call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        let row = self.row();
        match row.symbols {
            [name, ..] => name,
            [] => row.id,
        }
    }

    /// Whether its return is probed.
    #[must_use]
    pub const fn returns(self) -> bool {
        returns(self as u32)
    }
}

/// The functions whose return is not probed, one bit each. It is a number and no table, so that the kernel side
/// need not look into memory at a place that the verifier cannot follow.
const WITHOUT_RETURN: u64 = {
    let mut bits = 0;
    let mut place = 0;
    let mut rows = FUNCTIONS;
    while let [row, rest @ ..] = rows {
        if matches!(row.role, Role::EntryOnly | Role::Registers) {
            bits |= 1 << place;
        }
        (rows, place) = (rest, place + 1);
    }
    bits
};

const _: () = assert!(FUNCTIONS.len() <= 64);

/// Whether the return of the function with this number is probed.
#[must_use]
#[inline(always)]
pub const fn returns(function: u32) -> bool {
    function < u64::BITS && (WITHOUT_RETURN >> function) & 1 == 0
}

/// What is known of a run of a wrapper; `bits` of [`LibcRecord`].
pub mod bits {
    /// It is the child that returned from the wrapper.
    pub const CHILD: u32 = 1;
    /// `returned_ns` and `ret` were taken. Without it the thread ended inside the wrapper, or the
    /// return is not probed.
    pub const RETURNED: u32 = 1 << 1;
}

/// How many runs of handlers one run of a wrapper keeps.
pub const HANDLER_RUNS: usize = 12;

/// One run of a handler that a program has registered with `pthread_atfork`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct HandlerRun {
    /// The number that user space has given to the handler.
    pub handler: u64,
    /// When it was entered.
    pub entered_ns: u64,
    /// When it returned; 0 where that was not seen.
    pub returned_ns: u64,
}

impl HandlerRun {
    /// A run with every byte zero.
    pub const ZEROED: Self = Self { handler: 0, entered_ns: 0, returned_ns: 0 };
}

/// One run of a wrapper, in the caller or in the child.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct LibcRecord {
    /// [`RecordKind::Libc`](crate::record::RecordKind::Libc).
    pub kind: u32,
    /// What is known, as [`bits`].
    pub bits: u32,
    /// The wrapper, a [`LibcFunction`].
    pub function: u32,
    /// The library: its place in user space's list, plus 1; 0 where the kernel does not tell it, and in
    /// the child's record.
    pub library: u32,
    /// The thread that ran it.
    pub thread: TaskIds,
    /// When it was entered; 0 in the child's record.
    pub entered_ns: u64,
    /// When it returned, with [`bits::RETURNED`].
    pub returned_ns: u64,
    /// The field `start_ns` of the attempt that was made in it, the last one if there were several;
    /// 0 if there was none.
    pub attempt_ns: u64,
    /// What it returned, with [`bits::RETURNED`].
    pub ret: i64,
    /// The stack pointer at its entry; 0 in the child's record.
    pub sp: u64,
    /// When each [`Part`] was entered and when it returned; 0 where that was not seen.
    pub parts: [[u64; 2]; Part::COUNT],
    /// How many probed handlers ran, which may be more than are kept.
    pub handlers: u64,
    /// The first of these, in order.
    pub runs: [HandlerRun; HANDLER_RUNS],
}

impl LibcRecord {
    /// A record with every byte zero, except for the kind.
    #[must_use]
    pub const fn zeroed() -> Self {
        Self {
            kind: crate::record::RecordKind::Libc as u32,
            bits: 0,
            function: 0,
            library: 0,
            thread: TaskIds { tgid: 0, tid: 0, start_ns: 0 },
            entered_ns: 0,
            returned_ns: 0,
            attempt_ns: 0,
            ret: 0,
            sp: 0,
            parts: [[0; 2]; Part::COUNT],
            handlers: 0,
            runs: [HandlerRun::ZEROED; HANDLER_RUNS],
        }
    }

    /// Whether `bit` of [`bits`] is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, bit: u32) -> bool {
        self.bits & bit != 0
    }
}

/// A process registers handlers with `pthread_atfork`, or runs another program and so loses them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
pub struct AtforkRecord {
    /// [`RecordKind::Atfork`](crate::record::RecordKind::Atfork).
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// The process's id as /proc of user space's pid namespace has it; 0 where it has none there.
    pub proc_pid: u32,
    /// 1: it runs another program.
    pub execs: u32,
    /// When that happened.
    pub at_ns: u64,
    /// The addresses of the handlers before the fork, after it in the caller, and in the child; 0 for none.
    pub handlers: [u64; 3],
}

// There is no padding.
const _: () = assert!(size_of::<AtforkRecord>() == 16 + 8 + 24);

/// The symbol of the switch that links attempts with the wrappers around them: a `u8`, 0 or 1.
pub const LIBC_ON: &str = "LIBC_ON";
/// The symbol of the switch that the kernel tells which library it is
/// ([`COOKIE_HELPER`] can be called): a `u8`, 0 or 1.
pub const COOKIES: &str = "COOKIES";
/// The helper that tells which attachment ran, by the name of the kernel's function: 5.15 and later.
pub const COOKIE_HELPER: &str = "bpf_get_attach_cookie_trace";

// There is no padding: nothing would set a byte that no field names before it leaves the kernel.
const _: () =
    assert!(size_of::<LibcRecord>() == 16 + 16 + 40 + 16 * Part::COUNT + 8 + 24 * HANDLER_RUNS);
const _: () = assert!(align_of::<LibcRecord>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discriminant_is_the_place_in_the_table() {
        for (place, row) in FUNCTIONS.iter().enumerate() {
            assert_eq!(row.function as usize, place, "{}", row.id);
        }
        for (place, part) in Part::ALL.iter().enumerate() {
            assert_eq!(*part as usize, place);
        }
    }

    #[test]
    fn a_symbol_is_of_one_function() {
        let all = || FUNCTIONS.iter().flat_map(|row| row.symbols);
        for symbol in all() {
            assert_eq!(all().filter(|other| *other == symbol).count(), 1, "{symbol}");
        }
    }
}
