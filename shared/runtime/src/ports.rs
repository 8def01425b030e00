//! Listeners, bound before anything is told about them; free ports that were taken once are taken again.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use crate::files::{FileError, read, write_public};

/// The ports of a data directory, in `ports.json`.
#[derive(Debug)]
pub struct Ports {
    path: PathBuf,
    kept: BTreeMap<String, u16>,
}

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The file of ports cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address} for {name}: {source}; {remedy}")]
    Bind {
        /// For what.
        name: String,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
        /// What to do.
        remedy: String,
    },
}

impl Ports {
    /// The ports kept in this data directory.
    pub fn open(data_dir: &Path) -> Result<Self, FileError> {
        let path = data_dir.join("ports.json");
        let kept = match read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| FileError::damaged(&path, e.to_string()))?,
            Err(error) if error.is_missing() => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, kept })
    }

    /// Binds a listener, ready for tokio. Port 0 takes the port that `name` had before, or a free one, which is kept.
    pub fn bind(&mut self, name: &str, address: SocketAddr) -> Result<TcpListener, PortError> {
        let kept = if address.port() == 0 {
            self.kept.get(name).copied()
        } else {
            None
        };
        let wanted = SocketAddr::new(address.ip(), kept.unwrap_or(address.port()));
        let bound = TcpListener::bind(wanted).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?.port(), listener))
        });
        let (port, listener) = bound.map_err(|source| PortError::Bind {
            name: name.into(),
            address: wanted,
            source,
            remedy: match kept {
                Some(_) => format!(
                    "free the port, which earlier starts used, or remove {name} from {} to take another",
                    self.path.display()
                ),
                None => "free it, or give another address".into(),
            },
        })?;
        if address.port() == 0 && kept != Some(port) {
            self.kept.insert(name.into(), port);
            let text = serde_json::to_vec_pretty(&self.kept).expect("names and numbers always serialise");
            write_public(&self.path, &text)?;
        }
        Ok(listener)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_taken_again_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let addresses = |ports: &mut Ports| {
            let (a, b) = (ports.bind("hvca", any).unwrap(), ports.bind("admin", any).unwrap());
            (a.local_addr().unwrap(), b.local_addr().unwrap())
        };
        let first = addresses(&mut Ports::open(dir.path()).unwrap());
        assert_ne!(first.0, first.1);
        assert_eq!(addresses(&mut Ports::open(dir.path()).unwrap()), first);
        let fixed = TcpListener::bind(any).unwrap().local_addr().unwrap();
        let listener = Ports::open(dir.path()).unwrap().bind("hvca", fixed).unwrap();
        assert_eq!(listener.local_addr().unwrap(), fixed);
        drop(listener);
        assert_eq!(
            addresses(&mut Ports::open(dir.path()).unwrap()),
            first,
            "a fixed port is not kept"
        );
    }

    #[test]
    fn a_taken_port_says_where_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let _held = Ports::open(dir.path()).unwrap().bind("hvca", any).unwrap();
        let error = Ports::open(dir.path())
            .unwrap()
            .bind("hvca", any)
            .unwrap_err()
            .to_string();
        assert!(error.contains("ports.json") && error.contains("hvca"), "{error}");
    }
}
