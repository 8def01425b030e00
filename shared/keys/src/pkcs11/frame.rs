//! What token and worker say to one another: frames of a length (four bytes, big-endian) and a postcard document, each with the number of
//! the call that it belongs to.

use std::{
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use domain::key::{KeyType, SignatureAlgorithm};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::{Zeroize, Zeroizing};

use super::{Options, fault::Fault};
use crate::KeyInfo;

/// No frame is longer. A revocation list of a million entries is shorter.
pub(super) const FRAME_LIMIT: usize = 64 * 1024 * 1024;
/// The number of the first call, which opens the token.
pub(super) const OPENING: u64 = 0;

/// What a worker is asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    /// Number of the call.
    pub call: u64,
    /// What to do.
    pub order: Order,
}

/// A [`Request`] as it is written: the order stays with whoever gives it.
#[derive(Debug, Serialize)]
pub(super) struct Asked<'a> {
    /// Number of the call.
    pub call: u64,
    /// What to do.
    pub order: &'a Order,
}

/// What a worker is asked to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    Open(Options),
    List,
    Find {
        name: String,
    },
    Generate {
        name: String,
        key_type: KeyType,
    },
    Import {
        name: String,
        private_key: Secret,
    },
    Sign {
        name: String,
        algorithm: SignatureAlgorithm,
        #[serde(with = "serde_bytes")]
        message: Vec<u8>,
    },
    SignCanary {
        #[serde(with = "serde_bytes")]
        message: Vec<u8>,
    },
    Destroy {
        name: String,
    },
}

/// What a worker answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Response {
    /// Number of the call.
    pub call: u64,
    /// What came of it.
    pub result: Result<Answer, Fault>,
}

/// What came of an order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Opened {
        /// Why the token has no canary key, if it has none and takes none.
        without_canary: Option<String>,
    },
    Done,
    Keys(Vec<KeyInfo>),
    Found(Option<KeyInfo>),
    Key(KeyInfo),
    Signature(#[serde(with = "serde_bytes")] Vec<u8>),
    Canary(Canary),
}

/// A signature by a token's canary key.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Canary {
    /// Of every canary key on the token: two signers that begin at the same time may each have made one.
    pub public_keys: Vec<Vec<u8>>,
    /// By one of them.
    pub signature: Vec<u8>,
}

impl Canary {
    /// Whether one of the canary keys has signed this.
    pub fn verifies(&self, message: &[u8]) -> bool {
        self.public_keys.iter().any(|public_key| {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
                .verify(message, &self.signature)
                .is_ok()
        })
    }
}

/// Bytes that are erased after use and never shown.
#[derive(Serialize, Deserialize)]
pub(super) struct Secret(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// A document as a frame.
pub(super) fn encode(document: &impl Serialize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for a private key at once: a growing buffer would leave copies of it behind.
    let mut frame = Vec::with_capacity(4096);
    frame.extend([0; 4]);
    let mut frame = Zeroizing::new(postcard::to_extend(document, frame).map_err(io::Error::other)?);
    let length = frame.len() - 4;
    match u32::try_from(length) {
        Ok(count) if length <= FRAME_LIMIT => frame[..4].copy_from_slice(&count.to_be_bytes()),
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{length} bytes, and a frame has at most {FRAME_LIMIT}"),
            ));
        }
    }
    Ok(frame)
}

/// Reads a frame; `None` where the other side has ended between two of them.
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if from.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..])?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    if length > FRAME_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    let mut document = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut document)?;
    postcard::from_bytes(&document)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The writing half of a socket, for several threads: whoever writes takes along what others have put there meanwhile.
pub(super) struct Outlet {
    waiting: Mutex<Zeroizing<Vec<u8>>>,
    socket: Mutex<UnixStream>,
}

impl Outlet {
    /// Over this socket.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            waiting: Mutex::default(),
            socket: Mutex::new(socket),
        }
    }

    /// Sends a frame, or has it sent. Where that fails, or takes longer than `limit`, the socket is shut: half a frame may be on its way,
    /// and nothing sensible can follow it.
    pub fn send(&self, frame: &[u8], limit: Option<Duration>) -> io::Result<()> {
        lock(&self.waiting).extend_from_slice(frame);
        let mut socket = lock(&self.socket);
        let frames = std::mem::take(&mut *lock(&self.waiting));
        if frames.is_empty() {
            return Ok(());
        }
        let sent = socket.set_write_timeout(limit).and_then(|()| socket.write_all(&frames));
        if sent.is_err() {
            let _ = socket.shutdown(Shutdown::Both);
        }
        sent
    }

    /// Ends both directions.
    pub fn shut(&self) {
        let _ = lock(&self.socket).shutdown(Shutdown::Both);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(call: u64, message: &[u8]) -> Zeroizing<Vec<u8>> {
        let order = &Order::SignCanary {
            message: message.to_vec(),
        };
        encode(&Asked { call, order }).unwrap()
    }

    #[test]
    fn frames_follow_one_another_and_keep_their_numbers() {
        let mut pipe = Vec::new();
        for call in [1, 300, u64::MAX] {
            pipe.extend_from_slice(&request(call, &[0xa5; 300]));
        }
        let mut pipe = pipe.as_slice();
        for call in [1, 300, u64::MAX] {
            let read: Request = read(&mut pipe).unwrap().unwrap();
            assert_eq!(read.call, call);
            assert!(matches!(read.order, Order::SignCanary { message } if message == [0xa5; 300]));
        }
        assert!(read::<Request>(&mut pipe).unwrap().is_none());
    }

    #[test]
    fn half_a_frame_a_monstrous_frame_and_nonsense_are_errors() {
        let whole = request(7, b"message");
        for length in 1..whole.len() {
            assert!(read::<Request>(&mut &whole[..length]).is_err(), "{length}");
        }
        assert!(read::<Request>(&mut &[0xff; 64][..]).is_err());
        assert!(read::<Request>(&mut &[0, 0, 0, 3, 9, 0xff, 0xff][..]).is_err());
        assert!(encode(&Answer::Signature(vec![0; FRAME_LIMIT + 1])).is_err());
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let order = Order::Import {
            name: "issuing".into(),
            private_key: Secret(b"private".to_vec()),
        };
        assert!(!format!("{order:?}").contains(&format!("{:?}", b"private")[1..8]));
    }
}
