//! Textual encodings (RFC 7468): written with 64 columns, read strictly.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The longest text that is read, in bytes. A CSR with an RSA-4096 key and a hundred names has 10,000.
pub const MAX_TEXT: usize = 64 * 1024;

/// Why a text is not what it should be. Never repeats the text itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Beyond [`MAX_TEXT`].
    #[error("the text has {0} bytes; at most {MAX_TEXT} are read")]
    TooLong(usize),
    /// Nothing there.
    #[error("there is no PEM block; begin with -----BEGIN {0}-----")]
    NoBlock(String),
    /// Another kind of block.
    #[error("the PEM block is labelled {found:?}; send one labelled {wanted:?}")]
    WrongLabel {
        /// What stands there.
        found: String,
        /// What should.
        wanted: String,
    },
    /// Somebody sent a private key.
    #[error(
        "the text holds a private key, which must never leave its owner: replace that key, and send only its public half"
    )]
    PrivateKey,
    /// Two blocks where one is wanted.
    #[error("there is more than one PEM block; send exactly one")]
    MoreThanOne,
    /// Something before or after the block.
    #[error("there is text outside the PEM block; send the block alone")]
    TextOutside,
    /// The block does not end, or ends with another label.
    #[error("the PEM block has no end line that matches its begin line")]
    NoEnd,
    /// Headers, or characters that are not base64.
    #[error("the inside of the PEM block is not base64 (headers and comments are not taken)")]
    NotBase64,
    /// Nothing inside.
    #[error("the PEM block is empty")]
    Empty,
}

/// Writes one block, 64 columns, with a final newline.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 36);
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// Reads the one block that a text is, apart from white space around it.
pub fn decode(label: &str, text: &str) -> Result<Vec<u8>, PemError> {
    decode_labelled(&[label], text)
}

/// Like [`decode`], with more than one label allowed; the first is the one that errors ask for.
pub fn decode_labelled(labels: &[&str], text: &str) -> Result<Vec<u8>, PemError> {
    let block = only_block(labels, text)?;
    let der = block.der()?;
    if labels.contains(&block.label) {
        Ok(der)
    } else {
        Err(PemError::WrongLabel {
            found: shown(block.label),
            wanted: labels[0].to_owned(),
        })
    }
}

fn only_block<'a>(labels: &[&str], text: &'a str) -> Result<Block<'a>, PemError> {
    let (before, block, after) = next_block(bounded(text)?)?.ok_or_else(|| PemError::NoBlock(labels[0].to_owned()))?;
    if block.is_private() {
        return Err(PemError::PrivateKey);
    }
    match next_block(after)? {
        Some((_, other, _)) if other.is_private() => Err(PemError::PrivateKey),
        Some(_) => Err(PemError::MoreThanOne),
        None if !(before.trim_ascii().is_empty() && after.trim_ascii().is_empty()) => Err(PemError::TextOutside),
        None => Ok(block),
    }
}

/// Reads every block of a text, which must all have this label. Text around blocks is passed over, as files with chains have it.
pub fn decode_all(label: &str, text: &str) -> Result<Vec<Vec<u8>>, PemError> {
    let mut rest = bounded(text)?;
    let mut found = Vec::new();
    while let Some((_, block, after)) = next_block(rest)? {
        if block.is_private() {
            return Err(PemError::PrivateKey);
        }
        if block.label != label {
            return Err(PemError::WrongLabel {
                found: shown(block.label),
                wanted: label.to_owned(),
            });
        }
        found.push(block.der()?);
        rest = after;
    }
    if found.is_empty() {
        return Err(PemError::NoBlock(label.to_owned()));
    }
    Ok(found)
}

fn bounded(text: &str) -> Result<&str, PemError> {
    if text.len() > MAX_TEXT {
        Err(PemError::TooLong(text.len()))
    } else {
        Ok(text)
    }
}

fn shown(label: &str) -> String {
    label.chars().take(64).collect()
}

struct Block<'a> {
    label: &'a str,
    body: &'a str,
}

impl Block<'_> {
    fn is_private(&self) -> bool {
        self.label.contains("PRIVATE KEY")
    }

    fn der(&self) -> Result<Vec<u8>, PemError> {
        let mut base64 = self.body.to_owned();
        base64.retain(|c| !matches!(c, '\n' | '\r' | ' ' | '\t'));
        if base64.is_empty() {
            return Err(PemError::Empty);
        }
        STANDARD.decode(base64).map_err(|_| PemError::NotBase64)
    }
}

/// What comes before the next block, the block, and what comes after it.
fn next_block(text: &str) -> Result<Option<(&str, Block<'_>, &str)>, PemError> {
    const BEGIN: &str = "-----BEGIN ";
    let Some((before, after)) = text.split_once(BEGIN) else {
        return Ok(None);
    };
    let (label, after) = after.split_once("-----").ok_or(PemError::NoEnd)?;
    if label.contains(['\n', '\r']) {
        return Err(PemError::NoEnd);
    }
    let (body, after) = after.split_once("-----END ").ok_or(PemError::NoEnd)?;
    let after = after
        .strip_prefix(label)
        .and_then(|after| after.strip_prefix("-----"))
        .ok_or(PemError::NoEnd)?;
    Ok(Some((before, Block { label, body }, after)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(der in proptest::collection::vec(any::<u8>(), 1..500)) {
            let text = encode("CERTIFICATE", &der);
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            prop_assert_eq!(decode("CERTIFICATE", &text), Ok(der.clone()));
            prop_assert_eq!(decode("CERTIFICATE", text.trim_end()), Ok(der.clone()));
            prop_assert_eq!(decode("CERTIFICATE", &text.replace('\n', "\r\n")), Ok(der.clone()));
            prop_assert_eq!(decode_all("CERTIFICATE", &format!("a title\n{text}another\n{text}")), Ok(vec![der.clone(), der]));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "(-----BEGIN |-----END |-----|A|=|\n|PRIVATE KEY|.){0,40}") {
            let _ = decode("A", &text);
            let _ = decode_all("A", &text);
        }
    }

    #[test]
    fn anything_but_one_block_of_the_right_label_is_refused() {
        let one = encode("CERTIFICATE REQUEST", b"der");
        let cases = [
            (String::new(), PemError::NoBlock("CERTIFICATE REQUEST".into())),
            ("MIIB".into(), PemError::NoBlock("CERTIFICATE REQUEST".into())),
            (format!("{one}{one}"), PemError::MoreThanOne),
            (format!("Certificate:\n{one}"), PemError::TextOutside),
            (format!("{one}more"), PemError::TextOutside),
            (one.replace("-----END", "-----"), PemError::NoEnd),
            (one.replace("END CERTIFICATE", "END"), PemError::NoEnd),
            (encode("CERTIFICATE REQUEST", b""), PemError::Empty),
            (one.replace("ZGVy", "ZGV"), PemError::NotBase64),
            (one.replace("ZGVy", "ZG!y"), PemError::NotBase64),
            (
                one.replace("ZGVy", "Proc-Type: 4,ENCRYPTED\n\nZGVy"),
                PemError::NotBase64,
            ),
            (" ".repeat(MAX_TEXT + 1), PemError::TooLong(MAX_TEXT + 1)),
            (
                encode("CERTIFICATE", b"der"),
                PemError::WrongLabel {
                    found: "CERTIFICATE".into(),
                    wanted: "CERTIFICATE REQUEST".into(),
                },
            ),
            (encode("EC PRIVATE KEY", b"secret"), PemError::PrivateKey),
            (
                format!("{one}{}", encode("PRIVATE KEY", b"secret")),
                PemError::PrivateKey,
            ),
        ];
        for (text, error) in cases {
            assert_eq!(decode("CERTIFICATE REQUEST", &text), Err(error), "{text}");
        }
    }
}
