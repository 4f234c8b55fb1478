//! Opens the files that are written to, and destroys nothing on the way.
//!
//! A file is opened without being emptied; only when every output is open and none of them is another
//! one's file or the file that is read is its old content thrown away. A file that is made here can be
//! read by its owner alone, because a recording holds the arguments of other users' commands.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    },
    path::Path,
    thread::sleep,
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    unistd::Uid,
};

/// Mode bits of a folder in which anyone may make files, and only a file's owner may remove it: `/tmp`.
const STICKY_FOR_ALL: u32 = libc::S_ISVTX | libc::S_IWOTH;

/// How long to wait before a pipe without a reader is tried again.
const NO_READER: Duration = Duration::from_millis(20);

/// Which file something is, under whatever name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// Device and inode.
    place: (u64, u64),
    /// Whether it is a regular file. Others, such as a terminal, a pipe or `/dev/null`, may be named as
    /// often as one likes.
    regular: bool,
}

impl FileId {
    /// The file behind a descriptor.
    ///
    /// # Errors
    /// The descriptor is not open.
    pub fn of(descriptor: impl AsFd) -> io::Result<Self> {
        let file = File::from(descriptor.as_fd().try_clone_to_owned()?);
        Ok(Self::from(&file.metadata()?))
    }

    /// Whether both are the same file, and writing to both, or reading one and writing the other, would
    /// destroy it.
    #[must_use]
    pub fn clashes(self, other: Self) -> bool {
        self == other && self.regular
    }
}

impl From<&Metadata> for FileId {
    fn from(found: &Metadata) -> Self {
        Self { place: (found.dev(), found.ino()), regular: found.is_file() }
    }
}

/// The user and group to whom a new file belongs.
pub type Owner = (u32, u32);

/// A file that is open for writing and still has its old content.
pub(super) struct Opened {
    /// The file.
    pub(super) file: File,
    /// Which one.
    pub(super) id: FileId,
    /// Whether it was made just now.
    created: bool,
}

impl Opened {
    /// Throws the old content away.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn empty(&self) -> io::Result<()> {
        if self.id.regular { self.file.set_len(0) } else { Ok(()) }
    }

    /// Removes the file at `path` again, if it was made just now.
    pub(super) fn undo(&self, path: &Path) {
        if self.created {
            // It is empty and in nobody's way.
            fs::remove_file(path).ok();
        }
    }
}

/// Opens `path` for writing. A new file belongs to `owner`, or to this process's user. A named pipe is
/// waited for until it has a reader, or `stop` says that there is no more need to.
///
/// # Errors
/// What the system says, and a link or file in a folder like `/tmp` that somebody else may have put there.
pub(super) fn open(
    path: &Path,
    owner: Option<Owner>,
    stop: &dyn Fn() -> bool,
) -> io::Result<Opened> {
    let trap = trap(path, owner)?;
    loop {
        match open_once(path, &trap) {
            Ok((file, created)) => return opened(file, created, owner),
            // KERNEL: fs/pipe.c `fifo_open`: without a reader, as we do not wait in there.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) && is_pipe(path) => {
                if stop() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                sleep(NO_READER);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Opens what is there, or makes it; returns whether it was made.
fn open_once(path: &Path, trap: &Trap) -> io::Result<(File, bool)> {
    // Only pipes heed O_NONBLOCK in open(2); it is taken back afterwards.
    let follow = if *trap == Trap::None { 0 } else { libc::O_NOFOLLOW };
    let flags = follow | libc::O_NONBLOCK | libc::O_NOCTTY;
    // Without O_CREAT: with it the kernel may refuse a file in /tmp that we gave to the user who called
    // sudo (fs.protected_regular, fs/namei.c `may_create_in_sticky`).
    match OpenOptions::new().write(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found.map(|file| (file, false)),
    }
    let mut new = OpenOptions::new();
    new.write(true).mode(0o600).custom_flags(flags);
    match new.create_new(true).open(path) {
        // A link to a file that is not there yet: the file is made.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && *trap == Trap::None => {
            new.create_new(false).create(true).open(path).map(|file| (file, false))
        }
        made => made.map(|file| (file, true)),
    }
}

fn opened(file: File, created: bool, owner: Option<Owner>) -> io::Result<Opened> {
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
    if let (true, Some((user, group))) = (created, owner)
        && let Err(error) = fchown(&file, Some(user), Some(group))
    {
        // Not every file system has owners.
        log::info!("the new file stays root's: {error}");
    }
    let id = FileId::from(&file.metadata()?);
    Ok(Opened { file, id, created })
}

fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

/// Whether the last part of a path may be a trap.
#[derive(PartialEq, Eq)]
enum Trap {
    /// It may not: the folder is no place where strangers make files, or the link is one that can be
    /// trusted.
    None,
    /// It may: no link is followed.
    NoLinks,
}

/// Looks at who made what stands at `path`, where that is a folder in which anyone may make files: as root
/// we could be led by a link to overwrite any file of the system, or write what others do into a file that
/// a stranger has made and can read.
///
/// KERNEL: fs/namei.c `may_follow_link` and `may_create_in_sticky` have the same rules, but only where
/// `fs.protected_symlinks` and `fs.protected_regular` are set.
fn trap(path: &Path, owner: Option<Owner>) -> io::Result<Trap> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Ok(folder) = fs::metadata(parent.unwrap_or(Path::new("."))) else { return Ok(Trap::None) };
    if folder.mode() & STICKY_FOR_ALL != STICKY_FOR_ALL {
        return Ok(Trap::None);
    }
    let Ok(found) = fs::symlink_metadata(path) else { return Ok(Trap::NoLinks) };
    let (user, by) = (Uid::effective().as_raw(), found.uid());
    let trusted = by == user || by == folder.uid();
    if found.is_symlink() {
        return if trusted { Ok(Trap::None) } else { Err(stranger("link", by)) };
    }
    if found.is_file() && !trusted && owner.is_none_or(|(caller, _)| caller != by) {
        return Err(stranger("file", by));
    }
    Ok(Trap::NoLinks)
}

fn stranger(what: &str, user: u32) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("anyone may make files in its folder, and user {user} made this {what}"),
    )
}

/// Standard output or error, without the buffers and locks of Rust's own: a thread that is stuck in a write
/// holds nothing that another one needs.
#[derive(Clone, Copy)]
pub(super) struct Standard(BorrowedFd<'static>);

impl Standard {
    /// Standard output.
    pub(super) const fn output() -> Self {
        // SAFETY: the descriptor is open for as long as this process lives: Rust opens it at the start if
        // need be, and nothing here closes it.
        Self(unsafe { BorrowedFd::borrow_raw(libc::STDOUT_FILENO) })
    }

    /// Standard error.
    pub(super) const fn error() -> Self {
        // SAFETY: as above.
        Self(unsafe { BorrowedFd::borrow_raw(libc::STDERR_FILENO) })
    }
}

impl AsFd for Standard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

impl io::Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(self.0, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{PermissionsExt as _, lchown, symlink},
        path::PathBuf,
    };

    use super::*;

    /// A folder of its own that goes away.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, mode: u32) -> Self {
            let path =
                std::env::temp_dir().join(format!("fork-trace-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn open_it(path: &Path) -> io::Result<Opened> {
        open(path, None, &|| true)
    }

    #[test]
    fn a_new_file_is_its_owners_alone_and_an_old_one_keeps_mode_and_content() {
        let folder = Folder::new("modes", 0o755);
        let new = folder.0.join("new");
        let opened = open_it(&new).unwrap();
        assert_eq!(fs::metadata(&new).unwrap().mode() & 0o777, 0o600);
        opened.undo(&new);
        assert!(!new.exists());

        fs::write(&new, "old").unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o640)).unwrap();
        let opened = open_it(&new).unwrap();
        opened.undo(&new);
        assert_eq!(fs::read(&new).unwrap(), b"old");
        opened.empty().unwrap();
        let left = fs::metadata(&new).unwrap();
        assert_eq!((left.len(), left.mode() & 0o777), (0, 0o640));
    }

    #[test]
    fn the_same_file_is_known_under_each_of_its_names() {
        let folder = Folder::new("same", 0o755);
        let [file, hard, soft] = ["file", "hard", "soft"].map(|name| folder.0.join(name));
        fs::write(&file, "").unwrap();
        fs::hard_link(&file, &hard).unwrap();
        symlink(&file, &soft).unwrap();
        let [file, hard, soft] = [file, hard, soft].map(|path| open_it(&path).unwrap().id);
        assert!(file.clashes(hard) && file.clashes(soft));
        let null = open_it(Path::new("/dev/null")).unwrap().id;
        assert!(!null.clashes(null));
    }

    #[test]
    fn a_link_to_a_file_that_is_not_there_makes_it_outside_of_shared_folders() {
        let folder = Folder::new("dangling", 0o755);
        let (link, target) = (folder.0.join("link"), folder.0.join("target"));
        symlink(&target, &link).unwrap();
        open_it(&link).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_pipe_without_a_reader_is_waited_for_until_told_otherwise() {
        let folder = Folder::new("fifo", 0o755);
        let path = folder.0.join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let asked = std::cell::Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) == 2;
        let error = open(&path, None, &stop).map(drop).unwrap_err();
        assert_eq!((error.kind(), asked.get()), (io::ErrorKind::Interrupted, 3));
    }

    /// Only root can make what another user would have made.
    #[test]
    fn what_a_stranger_put_into_a_shared_folder_is_left_alone() {
        if !Uid::effective().is_root() {
            return;
        }
        const STRANGER: u32 = 65_534;
        const CALLER: u32 = 1_000;
        let folder = Folder::new("sticky", 0o1777);
        let victim = folder.0.join("victim");
        fs::write(&victim, "precious").unwrap();
        let [link, dangling, own, file] =
            ["link", "dangling", "own", "file"].map(|name| folder.0.join(name));
        symlink(&victim, &link).unwrap();
        symlink(folder.0.join("nothing"), &dangling).unwrap();
        symlink(&victim, &own).unwrap();
        fs::write(&file, "").unwrap();
        for path in [&link, &dangling, &file] {
            lchown(path, Some(STRANGER), Some(STRANGER)).unwrap();
            let error = open_it(path).map(drop).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{}", path.display());
        }
        assert!(!folder.0.join("nothing").exists());
        assert!(open_it(&own).is_ok(), "our own link");
        // What we gave to the user who called sudo is his to have overwritten again.
        lchown(&file, Some(CALLER), Some(CALLER)).unwrap();
        assert!(open(&file, Some((CALLER, CALLER)), &|| true).is_ok());
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open_it(&link).is_ok(), "nobody else may make files here");
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }

    #[test]
    fn new_files_belong_to_the_caller() {
        if !Uid::effective().is_root() {
            return;
        }
        let folder = Folder::new("owner", 0o755);
        let (new, old) = (folder.0.join("new"), folder.0.join("old"));
        fs::write(&old, "").unwrap();
        for path in [&new, &old] {
            open(path, Some((1_000, 1_001)), &|| true).unwrap();
        }
        let of = |path: &Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
        assert_eq!(of(&new), (1_000, 1_001));
        assert_eq!(of(&old), (0, 0), "only what was made here is given away");
    }
}
