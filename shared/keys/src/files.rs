//! Private files: readable by their owner alone, written whole or not at all, erased before they are removed.

use std::{
    fs::{self, File, Metadata, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use zeroize::Zeroizing;

/// Why a private file cannot be used. Every message names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It is not there.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// It is there already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// Others than its owner may read or write it.
    #[error(
        "{} is open to others than its owner (mode {mode:03o}): run `chmod {} {}`",
        .path.display(), if *.is_dir { "700" } else { "600" }, .path.display()
    )]
    Exposed { path: PathBuf, mode: u32, is_dir: bool },
    /// It is larger than anything that belongs there.
    #[error("{} has more than {limit} bytes: it is not a file of this key store", .path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    /// The system refuses.
    #[error("cannot {action} {}: {error}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        error: io::Error,
    },
}

impl FileError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::NotFound => Self::Missing(path.to_owned()),
            io::ErrorKind::AlreadyExists => Self::Exists(path.to_owned()),
            _ => Self::Io {
                action,
                path: path.to_owned(),
                error,
            },
        }
    }
}

/// What changes when a file is replaced, rewritten, or given to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    mode: u32,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            mode: metadata.mode(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The stamp of a file, without opening it; one system call.
pub(crate) fn stamp(path: &Path) -> Result<Stamp, FileError> {
    fs::metadata(path)
        .map(|metadata| Stamp::of(&metadata))
        .map_err(FileError::io("look at", path))
}

fn refuse_exposed(path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed {
            path: path.to_owned(),
            mode,
            is_dir: metadata.is_dir(),
        });
    }
    Ok(())
}

/// Reads a file of at most `limit` bytes that nobody but its owner may read.
pub(crate) fn read_private(path: &Path, limit: u64) -> Result<(Zeroizing<Vec<u8>>, Stamp), FileError> {
    let file = File::open(path).map_err(FileError::io("open", path))?;
    let metadata = file.metadata().map_err(FileError::io("look at", path))?;
    refuse_exposed(path, &metadata)?;
    let too_large = || FileError::TooLarge {
        path: path.to_owned(),
        limit,
    };
    if metadata.len() > limit {
        return Err(too_large());
    }
    // Room for the whole file at once: a growing buffer would leave copies of a secret behind.
    let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(limit).map_err(|_| too_large())? + 1));
    file.take(limit + 1)
        .read_to_end(&mut content)
        .map_err(FileError::io("read", path))?;
    if content.len() as u64 > limit {
        return Err(too_large());
    }
    Ok((content, Stamp::of(&metadata)))
}

/// Makes a directory that only its owner may enter, or checks that it is one.
pub(crate) fn ensure_private_dir(path: &Path) -> Result<(), FileError> {
    match fs::metadata(path) {
        Ok(metadata) => refuse_exposed(path, &metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(FileError::io("create", path)),
        Err(error) => Err(FileError::io("look at", path)(error)),
    }
}

/// Writes a file that must not exist yet. Either it is there afterwards, whole and on disk, or [`FileError::Exists`] or another error
/// says that it is not; two writers never both succeed.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut suffix = [0; 8];
    rand::fill(&mut suffix).map_err(|_| FileError::Io {
        action: "name a temporary file beside",
        path: path.to_owned(),
        error: io::Error::other("no randomness"),
    })?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:016x}", u64::from_be_bytes(suffix)));
    let temporary = path.with_file_name(name);

    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(FileError::io("create", &temporary))?;
        // Whatever the umask was: the owner may read and write, and nobody else.
        file.set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| file.write_all(content))
            .and_then(|()| file.sync_all())
            .map_err(FileError::io("write", &temporary))?;
        // A link, not a rename: it fails when somebody else was faster.
        fs::hard_link(&temporary, path).map_err(FileError::io("create", path))
    })();
    let removed = fs::remove_file(&temporary);
    written?;
    removed.map_err(FileError::io("remove", &temporary))?;
    sync_dir_of(path)
}

/// Overwrites a file, then removes it. (On file systems that copy on write the old blocks may survive; what they hold is encrypted.)
pub(crate) fn erase(path: &Path) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(FileError::io("open", path))?;
    let size = file.metadata().map_err(FileError::io("look at", path))?.len();
    let overwritten = io::copy(&mut io::repeat(0).take(size), &mut file)
        .and_then(|_| file.flush())
        .and_then(|()| file.sync_all());
    fs::remove_file(path).map_err(FileError::io("remove", path))?;
    sync_dir_of(path)?;
    overwritten.map_err(FileError::io("overwrite", path))
}

fn sync_dir_of(path: &Path) -> Result<(), FileError> {
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(FileError::io("sync", dir))
}
