//! Files that operators name: read within a limit, written whole, private ones for their owner alone, nothing overwritten by accident.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::failure::{Failure, Outcome};

/// The greatest file that is read, in bytes.
const LIMIT: u64 = 16 << 20;

/// Reads a file that an argument names.
pub fn read(path: &Path) -> Outcome<Vec<u8>> {
    let cannot = |error: std::io::Error| Failure::usage(format_args!("cannot read {}: {error}", path.display()));
    let mut content = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(LIMIT + 1).read_to_end(&mut content))
        .map_err(cannot)?;
    if content.len() as u64 > LIMIT {
        return Err(Failure::usage(format_args!(
            "{} is larger than {LIMIT} bytes",
            path.display()
        )));
    }
    Ok(content)
}

/// Reads a text file that an argument names.
pub fn read_text(path: &Path) -> Outcome<String> {
    String::from_utf8(read(path)?).map_err(|_| Failure::usage(format_args!("{} is not text in UTF-8", path.display())))
}

/// One PEM block with this label, or DER as it is.
pub fn read_der(path: &Path, label: &str) -> Outcome<Vec<u8>> {
    let content = read(path)?;
    let begins_pem = content.trim_ascii_start().starts_with(b"-----BEGIN");
    if !begins_pem {
        return Ok(content);
    }
    let text = String::from_utf8_lossy(&content);
    pki::pem::decode(label, &text).map_err(|error| Failure::usage(format_args!("{}: {error}", path.display())))
}

/// Writes a result where an argument says.
pub fn write(path: &Path, content: &str) -> Outcome {
    fs::write(path, content).map_err(|error| Failure::failed(format_args!("cannot write {}: {error}", path.display())))
}

/// Writes a private file (mode 0600) that must not exist yet.
pub fn write_new_private(path: &Path, content: &str) -> Outcome {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::usage(format_args!(
            "{} exists already, and a key is never overwritten",
            path.display()
        ))
        .next("give another --key-out, or move the file away"),
        _ => Failure::failed(format_args!("cannot write {}: {error}", path.display())),
    })
}
