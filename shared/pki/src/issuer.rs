//! Registering an issuer: from a chain of CA certificates to a [`domain::issuer::Issuer`].

use domain::{
    bytes::Blob,
    id::IssuerId,
    issuer::{Binding, Issuer, IssuerState, Usage},
    request::KeyUsage,
};

use crate::{
    asn1::{Element, Fault, Reader, element, tag},
    certificate::Facts,
    chain::{self, ChainError},
    key::{KeyError, Weakness, inspect, weakness},
    pem::{self, PemError},
};

/// Why a chain does not make an issuer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The file.
    #[error("the chain file: {0}")]
    Pem(#[from] PemError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The issuer's key.
    #[error("the issuer's key: {0}")]
    Key(#[from] KeyError),
    /// The issuer's key gives its private half away.
    #[error("the issuer's key: {0}")]
    Weak(#[from] Weakness),
    /// Without it, leaves could not name their issuer's key.
    #[error(
        "the issuer's certificate has no subject key identifier; have it issued with one (RFC 5280, section 4.2.1.2)"
    )]
    NoSubjectKeyIdentifier,
    /// An issuer without a name.
    #[error("the issuer's certificate has an empty subject; a CA needs a name (RFC 5280, section 4.1.2.6)")]
    EmptySubject,
    /// The name does not survive decoding and encoding, so that leaves would name another issuer.
    #[error("the issuer's subject is not encoded as DER demands ({0}); have the certificate issued again")]
    Subject(&'static str),
    /// CRLs are wanted and the certificate forbids them.
    #[error(
        "the issuer's certificate has a key usage without cRLSign; leave the crl usage off, or have it issued again"
    )]
    NoCrlSign,
    /// URLs are made from it.
    #[error("public URL {0:?}: give an http:// URL in ASCII without a slash, query or fragment at the end")]
    PublicUrl(String),
    /// A serial must have a shard.
    #[error("the number of CRL shards must be from 1 to 65535")]
    NoShards,
    /// The other chain is not for this issuer.
    #[error("chain {0} beside the default one is for another name, key or key identifier")]
    OtherIssuer(usize),
}

/// What registering needs besides the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Name.
    pub id: IssuerId,
    /// Base of the URLs in its certificates.
    pub public_url: String,
    /// Number of CRL shards, fixed for life.
    pub crl_shards: u16,
    /// Where its key lives; empty for an issuer that is offline.
    pub bindings: Vec<Binding>,
    /// What its key may be used for.
    pub usage: Usage,
}

/// Reads a PEM file with a chain, the issuer's certificate first and the root last, and makes an enabled issuer of it.
pub fn import_pem(registration: Registration, chain: &str) -> Result<Issuer, ImportError> {
    let chain = pem::decode_all("CERTIFICATE", chain)?.into_iter().map(Blob).collect();
    import(registration, chain, Vec::new())
}

/// Makes an enabled issuer of its default chain and of other chains for the same name and key.
///
/// Checked here: CA:TRUE, keyCertSign (and cRLSign for `crl`), subject key identifier, every link up to a self-signed root, a key of an
/// accepted type that is not known to be weak, and that the subject is encoded in the one way that DER allows. What the key can do is tried by whoever holds it;
/// [`Issuer::standing`] watches the times.
pub fn import(
    registration: Registration,
    chain: Vec<Blob>,
    other_chains: Vec<Vec<Blob>>,
) -> Result<Issuer, ImportError> {
    check_public_url(&registration.public_url)?;
    if registration.crl_shards == 0 {
        return Err(ImportError::NoShards);
    }
    let links = chain::verify(&chain)?;
    let own = links.first().ok_or(ChainError::Length(0))?;
    let key_type = inspect(own.public_key)?;
    if let Some(weakness) = weakness(own.public_key) {
        return Err(weakness.into());
    }
    check_subject(own.subject)?;
    let subject_key_id = own.subject_key_id.ok_or(ImportError::NoSubjectKeyIdentifier)?;
    if registration.usage.crl && !own.may(KeyUsage::CrlSign) {
        return Err(ImportError::NoCrlSign);
    }
    for (number, other) in (1..).zip(&other_chains) {
        let links = chain::verify(other)?;
        let identity = |facts: &Facts<'_>| {
            (
                facts.subject.to_vec(),
                facts.public_key.to_vec(),
                facts.subject_key_id.map(<[u8]>::to_vec),
            )
        };
        if links.first().map(identity) != Some(identity(own)) {
            return Err(ImportError::OtherIssuer(number));
        }
    }
    Ok(Issuer {
        id: registration.id,
        subject: own.subject.to_vec().into(),
        public_key: own.public_key.to_vec().into(),
        key_type,
        signature_algorithm: key_type.signature_algorithm(),
        subject_key_id: subject_key_id.to_vec().into(),
        not_after: links.iter().map(|facts| facts.not_after).min().unwrap_or(i64::MIN),
        state: IssuerState::Enabled,
        usage: registration.usage,
        reason: None,
        crl_shards: registration.crl_shards,
        public_url: registration.public_url,
        bindings: registration.bindings,
        chain,
        other_chains,
    })
}

fn check_public_url(url: &str) -> Result<(), ImportError> {
    let host = url.strip_prefix("http://").unwrap_or_default();
    let plain = url.bytes().all(|b| b.is_ascii_graphic()) && !url.contains(['?', '#', '"', '<', '>', '\\', '@']);
    if host.is_empty() || host.starts_with('/') || url.ends_with('/') || !plain || url.len() > 200 {
        return Err(ImportError::PublicUrl(url.chars().take(200).collect()));
    }
    Ok(())
}

/// Takes the subject apart and puts it together again, sets in DER order: it must come out byte for byte the same.
fn check_subject(subject: &[u8]) -> Result<(), ImportError> {
    let again = encode_again(subject).map_err(ImportError::Subject)?;
    if again == element(tag::SEQUENCE, &[]) {
        return Err(ImportError::EmptySubject);
    }
    if again == subject {
        Ok(())
    } else {
        Err(ImportError::Subject(
            "a relative name has its attributes in the wrong order",
        ))
    }
}

fn encode_again(name: &[u8]) -> Result<Vec<u8>, Fault> {
    let name = Element::only(name)?;
    if name.tag != tag::SEQUENCE {
        return Err("it is no sequence");
    }
    let mut relative_names = name.inside();
    let mut encoded = Vec::new();
    while !relative_names.is_at_end() {
        let mut attributes = relative_names.expect(tag::SET, "a relative name is no set")?.inside();
        let mut set = Vec::new();
        while !attributes.is_at_end() {
            set.push(attribute_again(&mut attributes)?);
        }
        if set.is_empty() {
            return Err("a relative name is empty");
        }
        set.sort();
        encoded.extend(element(tag::SET, &[&set.concat()]));
    }
    Ok(element(tag::SEQUENCE, &[&encoded]))
}

fn attribute_again(attributes: &mut Reader<'_>) -> Result<Vec<u8>, Fault> {
    let mut parts = attributes
        .expect(tag::SEQUENCE, "an attribute is no sequence")?
        .inside();
    let oid = parts.expect(tag::OBJECT_IDENTIFIER, "an attribute has no type")?;
    let value = parts.any()?;
    parts.end("an attribute has a third part")?;
    let oid = element(tag::OBJECT_IDENTIFIER, &[oid.value]);
    Ok(element(tag::SEQUENCE, &[&oid, &element(value.tag, &[value.value])]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Authority, Draft, Hierarchy, KEY_USAGE, SUBJECT_KEY_IDENTIFIER, registration};

    fn error_of(change: impl FnOnce(Draft) -> Draft) -> ImportError {
        let Hierarchy {
            root,
            ca,
            root_certificate,
            ..
        } = Hierarchy::new();
        let certificate = root.certify(&change(Draft::new(&ca, &root)));
        import(registration(), vec![certificate, root_certificate], vec![]).unwrap_err()
    }

    #[test]
    fn an_issuer_is_what_its_certificate_says() {
        let hierarchy = Hierarchy::new();
        let draft = Draft {
            not_after: b"\x17\x0d400101000000Z",
            ..Draft::new(&hierarchy.ca, &hierarchy.root)
        };
        let certificate = hierarchy.root.certify(&draft);
        let file: String = [&certificate, &hierarchy.root_certificate]
            .map(|der| pem::encode("CERTIFICATE", der))
            .concat();
        let issuer = import_pem(registration(), &file).unwrap();
        assert_eq!(*issuer.subject, hierarchy.ca.subject);
        assert_eq!(*issuer.public_key, hierarchy.ca.spki);
        assert_eq!(*issuer.subject_key_id, hierarchy.ca.key_id());
        assert_eq!(issuer.not_after, 2_208_988_800, "the earliest of the chain");
        assert_eq!(issuer.signature_algorithm, issuer.key_type.signature_algorithm());
        assert_eq!(issuer.chain, [certificate, hierarchy.root_certificate]);
    }

    #[test]
    fn an_issuer_needs_what_its_leaves_refer_to() {
        assert_eq!(
            error_of(|draft| draft.without(SUBJECT_KEY_IDENTIFIER)),
            ImportError::NoSubjectKeyIdentifier
        );
        assert_eq!(
            error_of(|draft| draft.with(KEY_USAGE, true, b"\x03\x02\x02\x04")),
            ImportError::NoCrlSign
        );
        let empty = element(tag::SEQUENCE, &[]);
        assert_eq!(
            error_of(|draft| Draft {
                subject: empty,
                ..draft
            }),
            ImportError::EmptySubject
        );
    }

    #[test]
    fn crl_sign_is_asked_for_only_when_crls_are_wanted() {
        let Hierarchy {
            root,
            ca,
            root_certificate,
            ..
        } = Hierarchy::new();
        let certificate = root.certify(&Draft::new(&ca, &root).with(KEY_USAGE, true, b"\x03\x02\x02\x04"));
        let mut wanted = registration();
        wanted.usage.crl = false;
        assert!(import(wanted, vec![certificate, root_certificate], vec![]).is_ok());
    }

    #[test]
    fn a_subject_that_does_not_survive_encoding_is_refused() {
        let attribute = |text: &[u8]| {
            element(
                tag::SEQUENCE,
                &[b"\x06\x03\x55\x04\x03", &element(tag::UTF8_STRING, &[text])],
            )
        };
        let (a, b) = (attribute(b"a"), attribute(b"b"));
        let subject = |attributes: &[&[u8]]| element(tag::SEQUENCE, &[&element(tag::SET, attributes)]);
        let ordered = subject(&[&a, &b]);
        assert_eq!(check_subject(&ordered), Ok(()));
        for subject in [
            subject(&[&b, &a]),
            subject(&[]),
            element(tag::SEQUENCE, &[&a]),
            subject(&[&element(tag::SEQUENCE, &[b"\x06\x03\x55\x04\x03"])]),
        ] {
            assert!(matches!(
                error_of(|draft| Draft { subject, ..draft }),
                ImportError::Subject(_)
            ));
        }
    }

    #[test]
    fn a_key_that_is_not_accepted_is_refused() {
        let spki = [&b"\x30\x2b\x30\x05\x06\x03\x2b\x65\x71\x03\x22\x00"[..], &[7; 33]].concat();
        assert_eq!(
            error_of(|draft| Draft { spki, ..draft }),
            ImportError::Key(KeyError::Algorithm("Ed448".into()))
        );
    }

    #[test]
    fn a_weak_key_is_refused() {
        let neutral = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00\x01"[..], &[0; 31]].concat();
        let refused = error_of(|draft| Draft { spki: neutral, ..draft });
        assert_eq!(refused, ImportError::Weak(Weakness::SmallOrder));
    }

    #[test]
    fn a_public_url_is_plain_http_without_a_slash_at_the_end() {
        let hierarchy = Hierarchy::new();
        for url in [
            "",
            "http://",
            "https://a.example",
            "http://a.example/",
            "a.example",
            "http://a.example?b",
            "http://ä.example",
            "http://a b",
            "http:///x",
        ] {
            let registration = Registration {
                public_url: url.into(),
                ..registration()
            };
            let error = import(registration, hierarchy.chain(), vec![]).unwrap_err();
            assert_eq!(error, ImportError::PublicUrl(url.into()));
        }
        let registration = Registration {
            public_url: "http://127.0.0.1:8080/pki".into(),
            ..registration()
        };
        assert!(import(registration, hierarchy.chain(), vec![]).is_ok());
    }

    #[test]
    fn a_serial_needs_a_shard() {
        let registration = Registration {
            crl_shards: 0,
            ..registration()
        };
        assert_eq!(
            import(registration, Hierarchy::new().chain(), vec![]),
            Err(ImportError::NoShards)
        );
    }

    #[test]
    fn another_chain_must_be_for_the_same_name_and_key() {
        let hierarchy = Hierarchy::new();
        let other_root = Authority::new("Other root");
        let cross = vec![
            other_root.certify(&Draft::new(&hierarchy.ca, &other_root)),
            other_root.certify(&Draft::new(&other_root, &other_root)),
        ];
        let issuer = import(registration(), hierarchy.chain(), vec![cross.clone()]).unwrap();
        assert_eq!(issuer.other_chains, [cross]);
        let foreign = Hierarchy::new().chain();
        let error = import(registration(), hierarchy.chain(), vec![foreign]).unwrap_err();
        assert_eq!(error, ImportError::OtherIssuer(1));
    }

    #[test]
    fn a_file_with_a_private_key_is_refused() {
        let file = pem::encode("PRIVATE KEY", b"secret");
        assert_eq!(
            import_pem(registration(), &file),
            Err(ImportError::Pem(PemError::PrivateKey))
        );
    }
}
