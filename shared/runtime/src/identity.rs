//! Who this process is: the installation root and node keys in a directory, private ones readable by their owner alone.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::id::{Incarnation, NodeId};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use wire::{signed::NodeKey, trust::RootKey};
use zeroize::Zeroizing;

use crate::{
    clock::entropy,
    files::{FileError, create_private_dir, pem, read, read_private, write_private, write_public},
};

/// The directory of keys with which processes speak to each other. Losing it means enrolling again; leaking it means revoking.
#[derive(Debug, Clone)]
pub struct Identity {
    dir: PathBuf,
}

impl Identity {
    /// The directory `dir`, made if it is not there.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        create_private_dir(dir)?;
        Ok(Self { dir: dir.into() })
    }

    /// The installation root, made at set-up. Its public half stands beside it in `root.pub`, base64.
    pub fn root_or_create(&self) -> Result<RootKey, FileError> {
        let path = self.dir.join("root.pem");
        let root = match read_pkcs8(&path) {
            Ok(pkcs8) => RootKey::from_pkcs8(&pkcs8).map_err(|e| FileError::damaged(&path, e.to_string()))?,
            Err(error) if error.is_missing() => {
                let root = RootKey::generate();
                write_private(&path, pem("PRIVATE KEY", &root.to_pkcs8()).as_bytes())?;
                root
            }
            Err(error) => return Err(error),
        };
        let public = self.dir.join("root.pub");
        let text = format!("{}\n", STANDARD.encode(root.public_key()));
        if read(&public).ok().as_deref() != Some(text.as_bytes()) {
            write_public(&public, text.as_bytes())?;
        }
        Ok(root)
    }

    /// The public half of the installation root, from `root.pub`: all that a process needs that does not enrol others.
    pub fn root_public_key(&self) -> Result<Vec<u8>, FileError> {
        let path = self.dir.join("root.pub");
        let text = read(&path)?;
        let key = STANDARD.decode(text.trim_ascii()).ok().filter(|key| key.len() == 32);
        key.ok_or_else(|| FileError::damaged(&path, "it is not 32 bytes in base64"))
    }

    /// Whether the installation root is here.
    pub fn has_root(&self) -> bool {
        self.dir.join("root.pem").exists()
    }

    /// Keeps the public half of the installation root: from now on this process believes it and no other.
    pub fn keep_root_public_key(&self, key: &[u8]) -> Result<(), FileError> {
        write_public(
            &self.dir.join("root.pub"),
            format!("{}\n", STANDARD.encode(key)).as_bytes(),
        )
    }

    /// The key of a node, made at its first start.
    pub fn node_key(&self, node: &NodeId) -> Result<NodeKey, FileError> {
        let path = self.dir.join(format!("node-{node}.pem"));
        match read_pkcs8(&path) {
            Ok(pkcs8) => {
                NodeKey::from_pkcs8(node.clone(), &pkcs8).map_err(|e| FileError::damaged(&path, e.to_string()))
            }
            Err(error) if error.is_missing() => {
                let key = NodeKey::generate(node.clone());
                write_private(&path, pem("PRIVATE KEY", &key.to_pkcs8()).as_bytes())?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }
}

/// This run of a node.
pub fn incarnation(node: &NodeId) -> Incarnation {
    Incarnation {
        node: node.clone(),
        run: u64::from_be_bytes(entropy()),
    }
}

fn read_pkcs8(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let text = read_private(path)?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&text)
        .map_err(|e| FileError::damaged(path, format!("it is not a PEM private key: {e}")))?;
    Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn keys_are_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(&dir.path().join("identity")).unwrap();
        let node = "signer-1".parse().unwrap();
        assert!(identity.root_public_key().unwrap_err().is_missing());
        let (root, key) = (identity.root_or_create().unwrap(), identity.node_key(&node).unwrap());
        let again = Identity::open(&dir.path().join("identity")).unwrap();
        assert_eq!(again.root_or_create().unwrap().public_key(), root.public_key());
        assert_eq!(again.root_public_key().unwrap(), root.public_key());
        assert_eq!(again.node_key(&node).unwrap().public_key(), key.public_key());
        assert_ne!(incarnation(&node), incarnation(&node));
    }

    #[test]
    fn a_key_that_others_can_read_and_a_damaged_one_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        let node = "signer-1".parse().unwrap();
        identity.node_key(&node).unwrap();
        let path = dir.path().join("node-signer-1.pem");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(identity.node_key(&node), Err(FileError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(matches!(identity.node_key(&node), Err(FileError::Damaged { .. })));
        fs::write(&path, "").unwrap();
        assert!(
            matches!(identity.node_key(&node), Err(FileError::Damaged { .. })),
            "an emptied key is not replaced"
        );
    }
}
