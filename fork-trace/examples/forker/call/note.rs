//! Remarks on an attempt, for whoever compares it with what a tracer saw.

/// What else a reader of an attempt has to know.
#[derive(Clone, Copy)]
pub(crate) enum Note {
    None,
    Helper,
    OwnPidNamespace,
    FlagsUnknown,
    TailNotZero,
    BeforeSyscall,
    Int80,
    NeverReturned,
}

impl Note {
    pub(crate) const ALL: [Self; 8] = [
        Self::None,
        Self::Helper,
        Self::OwnPidNamespace,
        Self::FlagsUnknown,
        Self::TailNotZero,
        Self::BeforeSyscall,
        Self::Int80,
        Self::NeverReturned,
    ];

    pub(crate) fn text(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Helper => Some("helper: the process the scenario runs in"),
            Self::OwnPidNamespace => Some("ret is in its own pid namespace"),
            Self::FlagsUnknown => Some("flags unknown: the kernel cannot read the struct"),
            Self::TailNotZero => Some("the bytes after the known struct are not zero"),
            Self::BeforeSyscall => Some("refused before the system call ran"),
            Self::Int80 => Some("i386 call by int 0x80 in a 64 bit process"),
            Self::NeverReturned => Some("never returned: what ret says is what is likely"),
        }
    }
}
