//! The forms in which a token takes and gives keys and signatures, and those of X.509: attributes, mechanisms, DER.

use aws_lc_rs::digest::{self, SHA256, SHA384, SHA512};
use cryptoki::{
    mechanism::{
        Mechanism,
        eddsa::{EddsaParams, EddsaSignatureScheme},
    },
    object::{Attribute, AttributeType, KeyType as Kind, ObjectClass},
};
use der::{
    Decode, Encode, Sequence, Tag,
    asn1::{Any, BitString, Null, ObjectIdentifier, OctetStringRef, PrintableStringRef, UintRef},
};
use domain::key::{KeyType, SignatureAlgorithm};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::name::KeyId;

const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// What tokens call the curve of Ed25519 where they name it (PKCS #11 3.0, section 2.3.5).
const EDWARDS_25519: &str = "edwards25519";
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// RSAPublicKey (RFC 8017, A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// ECDSA-Sig-Value (RFC 3279, 2.2.3).
#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

const fn curve(key_type: KeyType) -> Option<ObjectIdentifier> {
    match key_type {
        KeyType::P256 => Some(ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7")),
        KeyType::P384 => Some(ObjectIdentifier::new_unwrap("1.3.132.0.34")),
        KeyType::P521 => Some(ObjectIdentifier::new_unwrap("1.3.132.0.35")),
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 | KeyType::Ed25519 => None,
    }
}

/// Bytes of one coordinate, and of each half of a signature.
const fn field(key_type: KeyType) -> usize {
    key_type.bits().div_ceil(8) as usize
}

/// The mechanism that makes key pairs of this type, with what the public half is made from.
pub(super) fn generation(key_type: KeyType) -> der::Result<(Mechanism<'static>, Vec<Attribute>)> {
    Ok(match key_type {
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => (
            Mechanism::RsaPkcsKeyPairGen,
            vec![
                Attribute::ModulusBits(u64::from(key_type.bits()).into()),
                Attribute::PublicExponent(RSA_EXPONENT.to_vec()),
            ],
        ),
        KeyType::P256 | KeyType::P384 | KeyType::P521 => (
            Mechanism::EccKeyPairGen,
            vec![Attribute::EcParams(parameters(key_type)?)],
        ),
        KeyType::Ed25519 => (
            Mechanism::EccEdwardsKeyPairGen,
            vec![Attribute::EcParams(parameters(key_type)?)],
        ),
    })
}

/// `CKA_EC_PARAMS`: the curve's identifier, and for Ed25519 its name, which is what tokens of every age take.
pub(super) fn parameters(key_type: KeyType) -> der::Result<Vec<u8>> {
    match curve(key_type) {
        Some(curve) => curve.to_der(),
        None => PrintableStringRef::new(EDWARDS_25519)?.to_der(),
    }
}

/// What both halves of a key pair are, whatever their type.
pub(super) fn common(id: &KeyId) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Id(id.bytes().to_vec()),
        Attribute::Label(id.label()),
    ]
}

/// What the public half of a key pair may do.
pub(super) fn public_half(id: &KeyId) -> Vec<Attribute> {
    let mut template = common(id);
    template.extend([Attribute::Private(false), Attribute::Verify(true)]);
    template
}

/// What the private half of a key pair may do: sign, nothing else, and never leave the token.
pub(super) fn private_half(id: &KeyId) -> Vec<Attribute> {
    let mut template = common(id);
    template.extend([
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Sign(true),
        Attribute::Decrypt(false),
        Attribute::Unwrap(false),
    ]);
    template
}

/// Every object of one half of a key pair.
pub(super) fn search(class: ObjectClass, id: &KeyId) -> [Attribute; 3] {
    [
        Attribute::Class(class),
        Attribute::Token(true),
        Attribute::Id(id.bytes().to_vec()),
    ]
}

/// What [`public_key`] reads.
pub(super) const PUBLIC_ATTRIBUTES: [AttributeType; 5] = [
    AttributeType::KeyType,
    AttributeType::Modulus,
    AttributeType::PublicExponent,
    AttributeType::EcParams,
    AttributeType::EcPoint,
];

/// The type and the `SubjectPublicKeyInfo` of a key: rsaEncryption with NULL (RFC 3279, 2.3.1), a named curve with an uncompressed
/// point (RFC 5480, 2), or RFC 8410, 4. `None` if the attributes are not all there, or it is a key of another type.
pub(super) fn public_key(attributes: &[Attribute]) -> Option<(KeyType, Vec<u8>)> {
    let mut kind = None;
    let (mut modulus, mut exponent, mut parameters, mut point) = (None, None, None, None);
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(found) => kind = Some(*found),
            Attribute::Modulus(bytes) => modulus = Some(bytes),
            Attribute::PublicExponent(bytes) => exponent = Some(bytes),
            Attribute::EcParams(bytes) => parameters = Some(bytes),
            Attribute::EcPoint(bytes) => point = Some(bytes),
            _ => {}
        }
    }
    match kind? {
        Kind::RSA => rsa(modulus?, exponent?),
        Kind::EC => ecdsa(parameters?, point?),
        Kind::EC_EDWARDS => ed25519(parameters?, point?),
        _ => None,
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<(KeyType, Vec<u8>)> {
    let key = RsaPublicKey {
        modulus: UintRef::new(modulus).ok()?,
        public_exponent: UintRef::new(exponent).ok()?,
    };
    let modulus = key.modulus.as_bytes();
    let key_type = match (modulus.len(), modulus.first()? & 0x80 != 0) {
        (256, true) => KeyType::Rsa2048,
        (384, true) => KeyType::Rsa3072,
        (512, true) => KeyType::Rsa4096,
        _ => return None,
    };
    let info = info(RSA_ENCRYPTION, Some(Any::from(Null)), &key.to_der().ok()?)?;
    Some((key_type, info))
}

fn ecdsa(parameters: &[u8], point: &[u8]) -> Option<(KeyType, Vec<u8>)> {
    let named = ObjectIdentifier::from_der(parameters).ok()?;
    let key_type = [KeyType::P256, KeyType::P384, KeyType::P521]
        .into_iter()
        .find(|key_type| curve(*key_type) == Some(named))?;
    let length = 1 + 2 * field(key_type);
    let point = unwrapped(point, length)?;
    let info = info(EC_PUBLIC_KEY, Some(Any::from(named)), point)?;
    (point.first() == Some(&4)).then_some((key_type, info))
}

fn ed25519(parameters: &[u8], point: &[u8]) -> Option<(KeyType, Vec<u8>)> {
    let named = PrintableStringRef::from_der(parameters).is_ok_and(|name| name.as_str() == EDWARDS_25519);
    if !named && ObjectIdentifier::from_der(parameters) != Ok(ED25519) {
        return None;
    }
    Some((KeyType::Ed25519, info(ED25519, None, unwrapped(point, 32)?)?))
}

/// A point is an OCTET STRING around its bytes (PKCS #11 2.40, section 2.3.3), and bare on tokens that read this otherwise.
fn unwrapped(point: &[u8], length: usize) -> Option<&[u8]> {
    if point.len() == length {
        return Some(point);
    }
    let inner = <&OctetStringRef>::from_der(point).ok()?.as_bytes();
    (inner.len() == length).then_some(inner)
}

/// A point as tokens want to have it.
pub(super) fn wrapped(point: &[u8]) -> der::Result<Vec<u8>> {
    OctetStringRef::new(point)?.to_der()
}

fn info(oid: ObjectIdentifier, parameters: Option<Any>, key: &[u8]) -> Option<Vec<u8>> {
    let algorithm = AlgorithmIdentifierOwned { oid, parameters };
    let subject_public_key = BitString::from_bytes(key).ok()?;
    let info = SubjectPublicKeyInfoOwned {
        algorithm,
        subject_public_key,
    };
    info.to_der().ok()
}

/// What the token is to be given so that it signs a message. ECDSA takes a digest that is made here, since not every token can hash for it.
pub(super) fn to_sign(
    algorithm: SignatureAlgorithm,
    message: &[u8],
) -> (Mechanism<'static>, std::borrow::Cow<'_, [u8]>) {
    let hashed = |hash| digest::digest(hash, message).as_ref().to_vec().into();
    match algorithm {
        SignatureAlgorithm::RsaSha256 => (Mechanism::Sha256RsaPkcs, message.into()),
        SignatureAlgorithm::RsaSha384 => (Mechanism::Sha384RsaPkcs, message.into()),
        SignatureAlgorithm::RsaSha512 => (Mechanism::Sha512RsaPkcs, message.into()),
        SignatureAlgorithm::EcdsaSha256 => (Mechanism::Ecdsa, hashed(&SHA256)),
        SignatureAlgorithm::EcdsaSha384 => (Mechanism::Ecdsa, hashed(&SHA384)),
        SignatureAlgorithm::EcdsaSha512 => (Mechanism::Ecdsa, hashed(&SHA512)),
        SignatureAlgorithm::Ed25519 => (
            Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)),
            message.into(),
        ),
    }
}

/// A token's signature as X.509 has it: ECDSA's halves, one after the other (PKCS #11 2.40, section 2.3.1), become DER. `None` if it has
/// not the length that a signature by such a key has.
pub(super) fn signature(key_type: KeyType, raw: Vec<u8>) -> Option<Vec<u8>> {
    match key_type {
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => (raw.len() == field(key_type)).then_some(raw),
        KeyType::Ed25519 => (raw.len() == 64).then_some(raw),
        KeyType::P256 | KeyType::P384 | KeyType::P521 => {
            let (r, s) = raw.split_at_checked(field(key_type))?;
            if r.len() != s.len() {
                return None;
            }
            let signature = EcdsaSignature {
                r: UintRef::new(r).ok()?,
                s: UintRef::new(s).ok()?,
            };
            signature.to_der().ok()
        }
    }
}

/// The private half of a key from outside, as attributes. `None` if it has another form than PKCS#8 (RFC 5958) prescribes for its type.
pub(super) fn private_key(key_type: KeyType, pkcs8: &[u8]) -> Option<Vec<Attribute>> {
    let outer = PrivateKeyInfo::from_der(pkcs8).ok()?;
    let inner = outer.private_key.as_bytes();
    Some(match key_type {
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
            let key = RsaPrivateKey::from_der(inner).ok()?;
            let bytes = |number: UintRef<'_>| number.as_bytes().to_vec();
            vec![
                Attribute::KeyType(Kind::RSA),
                Attribute::Modulus(bytes(key.modulus)),
                Attribute::PublicExponent(bytes(key.public_exponent)),
                Attribute::PrivateExponent(bytes(key.private_exponent)),
                Attribute::Prime1(bytes(key.prime1)),
                Attribute::Prime2(bytes(key.prime2)),
                Attribute::Exponent1(bytes(key.exponent1)),
                Attribute::Exponent2(bytes(key.exponent2)),
                Attribute::Coefficient(bytes(key.coefficient)),
            ]
        }
        KeyType::P256 | KeyType::P384 | KeyType::P521 => vec![
            Attribute::KeyType(Kind::EC),
            Attribute::EcParams(parameters(key_type).ok()?),
            Attribute::Value(EcPrivateKey::from_der(inner).ok()?.private_key.as_bytes().to_vec()),
        ],
        KeyType::Ed25519 => vec![
            Attribute::KeyType(Kind::EC_EDWARDS),
            Attribute::EcParams(parameters(key_type).ok()?),
            Attribute::Value(<&OctetStringRef>::from_der(inner).ok()?.as_bytes().to_vec()),
        ],
    })
}

/// The public half of a key from outside, as attributes, from its `SubjectPublicKeyInfo`.
pub(super) fn public_half_of(key_type: KeyType, info: &[u8]) -> Option<Vec<Attribute>> {
    let info = SubjectPublicKeyInfoOwned::from_der(info).ok()?;
    let key = info.subject_public_key.as_bytes()?;
    Some(if key_type.is_rsa() {
        let key = RsaPublicKey::from_der(key).ok()?;
        vec![
            Attribute::KeyType(Kind::RSA),
            Attribute::Modulus(key.modulus.as_bytes().to_vec()),
            Attribute::PublicExponent(key.public_exponent.as_bytes().to_vec()),
        ]
    } else {
        let kind = match key_type {
            KeyType::Ed25519 => Kind::EC_EDWARDS,
            _ => Kind::EC,
        };
        vec![
            Attribute::KeyType(kind),
            Attribute::EcParams(parameters(key_type).ok()?),
            Attribute::EcPoint(wrapped(key).ok()?),
        ]
    })
}

/// OneAsymmetricKey (RFC 5958, 2), as far as it is needed.
struct PrivateKeyInfo<'a> {
    private_key: &'a OctetStringRef,
}

impl<'a> PrivateKeyInfo<'a> {
    fn from_der(der: &'a [u8]) -> der::Result<Self> {
        use der::{Header, SliceReader};
        let mut reader = SliceReader::new(der)?;
        Header::decode(&mut reader)?.tag().assert_eq(Tag::Sequence)?;
        let _version = u8::decode(&mut reader)?;
        let _algorithm = AlgorithmIdentifierOwned::decode(&mut reader)?;
        Ok(Self {
            private_key: <&OctetStringRef>::decode(&mut reader)?,
        })
    }
}

/// RSAPrivateKey of two primes (RFC 8017, A.1.2).
#[derive(Sequence)]
struct RsaPrivateKey<'a> {
    version: u8,
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
    private_exponent: UintRef<'a>,
    prime1: UintRef<'a>,
    prime2: UintRef<'a>,
    exponent1: UintRef<'a>,
    exponent2: UintRef<'a>,
    coefficient: UintRef<'a>,
}

/// ECPrivateKey (RFC 5915, 3).
#[derive(Sequence)]
struct EcPrivateKey<'a> {
    version: u8,
    private_key: &'a OctetStringRef,
    #[asn1(context_specific = "0", optional = "true", tag_mode = "EXPLICIT")]
    parameters: Option<ObjectIdentifier>,
    #[asn1(context_specific = "1", optional = "true", tag_mode = "EXPLICIT")]
    public_key: Option<BitString>,
}
