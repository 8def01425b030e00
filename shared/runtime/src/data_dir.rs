//! The data directory: made once, entered by one process at a time.

use std::{
    fs::{File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::files::{FileError, create_private_dir};

/// A data directory that this process alone holds, until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The system says no.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process has it.
    #[error("{path} is in use by process {holder}: stop that one first, or give another directory with --data", path = path.display())]
    InUse {
        /// Which directory.
        path: PathBuf,
        /// Whose it is, as far as is known.
        holder: String,
    },
}

impl DataDir {
    /// Makes the directory if it is not there (mode 0700), and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        create_private_dir(path)?;
        let lock_path = path.join("lock");
        let io = |action| FileError::io(action, &lock_path);
        let mut options = File::options();
        let mut lock = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(io("open"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Who holds it is a courtesy; the lock itself is what counts.
                let _ = lock.read_to_string(&mut holder);
                let holder = holder.trim().to_owned();
                return Err(DataDirError::InUse {
                    path: path.into(),
                    holder,
                });
            }
            Err(TryLockError::Error(error)) => return Err(io("lock")(error).into()),
        }
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(io("write"))?;
        writeln!(lock, "{}", std::process::id()).map_err(io("write"))?;
        Ok(Self {
            path: path.into(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory within it, for its owner alone; made if it is not there.
    pub fn directory(&self, name: &str) -> Result<PathBuf, FileError> {
        let path = self.path.join(name);
        create_private_dir(&path)?;
        Ok(path)
    }

    /// The path of a file within it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_entered_once_at_a_time() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let held = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(&std::process::id().to_string()) && message.contains("--data"),
            "{message}"
        );
        assert!(held.directory("keys").unwrap().is_dir());
        drop(held);
        DataDir::open(&path).unwrap();
    }
}
