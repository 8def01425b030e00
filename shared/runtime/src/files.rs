//! Files that matter: written whole or not at all, and private ones kept private.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// The greatest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// A file cannot be read or written as it must be.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system says no.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner can read a private file.
    #[error("{path} can be read by others (mode {mode:04o}); run: chmod 600 {path}", path = path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It does not hold what it should.
    #[error("{path} is damaged: {detail}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

impl FileError {
    /// An error that names action and file.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.into(),
            source,
        }
    }

    /// A file that does not hold what it should.
    pub fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.into(),
            detail: detail.into(),
        }
    }

    /// Whether the file is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Creates a directory (and those above it) that only its owner may enter. One that is there stays as it is.
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(FileError::io("create directory", path))
}

/// Writes a file that only its owner may read (0600), by rename, synced.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    write(path, content, 0o600)
}

/// Writes a file that everybody may read (0644), by rename, synced.
pub fn write_public(path: &Path, content: &[u8]) -> Result<(), FileError> {
    write(path, content, 0o644)
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let random = u64::from_be_bytes(crate::clock::entropy());
    let temporary = directory.join(format!(".{name}.{random:016x}"));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // What is left over is only a hidden file with a random name; the first error is the one that counts.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(FileError::io("write", path))
}

/// Reads a file of at most 1 MiB.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(FileError::io("read", path))?;
    read_open(file, path)
}

/// Reads a private file; refuses one that others than its owner can read.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(FileError::io("read", path))?;
    let mode = file.metadata().map_err(FileError::io("read", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed {
            path: path.into(),
            mode,
        });
    }
    read_open(file, path).map(Zeroizing::new)
}

fn read_open(file: File, path: &Path) -> Result<Vec<u8>, FileError> {
    let mut content = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut content)
        .map_err(FileError::io("read", path))?;
    if content.len() as u64 > LIMIT {
        return Err(FileError::damaged(path, format!("it is larger than {LIMIT} bytes")));
    }
    Ok(content)
}

/// One PEM block (RFC 7468) with lines of 64 columns.
pub fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(format!("-----BEGIN {label}-----\n"));
    let mut rest: &str = &text;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_private_file_is_for_its_owner_alone_even_over_an_open_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"secret").unwrap();
        assert_eq!(
            (mode(&path), read_private(&path).unwrap().as_slice()),
            (0o600, &b"secret"[..])
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something is left over");
    }

    #[test]
    fn a_private_file_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        write_public(&path, b"secret").unwrap();
        let error = read_private(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert_eq!(read(&path).unwrap(), b"secret");
    }

    #[test]
    fn errors_name_the_file() {
        let missing = read(Path::new("/nonexistent/file")).unwrap_err();
        assert!(missing.is_missing() && missing.to_string().contains("/nonexistent/file"));
        assert!(write_public(Path::new("/nonexistent/file"), b"").is_err());
    }

    #[test]
    fn a_pem_block_has_64_columns() {
        let pem = pem("X", &[0; 50]);
        let lines: Vec<&str> = pem.lines().collect();
        assert_eq!(
            (lines.len(), lines[0], lines[1].len(), lines[3]),
            (4, "-----BEGIN X-----", 64, "-----END X-----")
        );
    }
}
