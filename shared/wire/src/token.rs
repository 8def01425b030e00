//! Bearer tokens: JWTs (RFC 7519) signed with EdDSA (RFC 8037) by the front end that gave them, bound to the client's certificate
//! (RFC 8705, section 3).
//!
//! Each front end has a signing key of its own; its public half travels in the registry's snapshot, so any front end verifies the
//! tokens of all. Times are judged by the caller's `now` (store time), never by this host's clock.

use std::{collections::BTreeMap, fmt, sync::Arc};

use aws_lc_rs::{
    digest,
    rand::{SecureRandom, SystemRandom},
    signature::KeyPair,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{
    bytes::Digest,
    id::{AccountId, NodeId},
    issuer::TokenKey,
    time::Timestamp,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::signed::NodeKey;

/// The greatest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 4096;

/// What keys that sign tokens are derived for.
const TOKENS: &str = "bulkhead bearer tokens";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The front end that gave it.
    pub iss: NodeId,
    /// Which API it is for: `hvca`, `dss`.
    pub aud: String,
    /// Whose it is.
    pub sub: AccountId,
    /// Given at, UNIX seconds.
    pub iat: i64,
    /// Void from, UNIX seconds.
    pub exp: i64,
    /// Different for every token.
    pub jti: String,
    /// The certificate that its bearer must show.
    pub cnf: Confirmation,
}

/// RFC 8705, section 3.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// SHA-256 of the client certificate in DER, base64url.
    #[serde(rename = "x5t#S256")]
    pub x5t_s256: String,
}

impl Confirmation {
    /// The confirmation for a certificate with this fingerprint.
    pub fn of(fingerprint: &Digest) -> Self {
        Self {
            x5t_s256: URL_SAFE_NO_PAD.encode(fingerprint.0),
        }
    }
}

/// A key that signs tokens.
pub struct TokenSigner {
    public: TokenKey,
    private: EncodingKey,
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSigner({})", self.public.id)
    }
}

impl TokenSigner {
    /// The key of this node whose tokens are void after `not_after` at the latest. It follows from the node's own key and that time: a
    /// node that starts anew has the keys that the registry knows of it already, and none lies on a disk.
    ///
    /// # Panics
    /// Never: lengths are those of the algorithms.
    pub fn of(node_key: &NodeKey, not_after: Timestamp) -> Self {
        let pair = node_key.derived(TOKENS, &not_after.as_millis().to_be_bytes());
        let public_key = pair.public_key().as_ref().to_vec();
        let thumbprint = digest::digest(&digest::SHA256, &public_key);
        let id = URL_SAFE_NO_PAD.encode(&thumbprint.as_ref()[..16]);
        let pkcs8 = pair.to_pkcs8v1().expect("a key that exists can be encoded");
        let private = EncodingKey::from_ed_der(pkcs8.as_ref());
        Self {
            public: TokenKey {
                id,
                node: node_key.node().clone(),
                public_key: public_key.into(),
                not_after,
            },
            private,
        }
    }

    /// The public half, for the registry.
    pub fn public(&self) -> &TokenKey {
        &self.public
    }

    /// A token for `account`, bound to the certificate with this fingerprint, good for `seconds` from `now`.
    ///
    /// # Panics
    /// If the operating system gives no randomness.
    pub fn mint(
        &self,
        account: &AccountId,
        audience: &str,
        fingerprint: &Digest,
        now: Timestamp,
        seconds: i64,
    ) -> String {
        let mut unique = [0; 16];
        SystemRandom::new()
            .fill(&mut unique)
            .expect("the operating system gives randomness");
        let claims = Claims {
            iss: self.public.node.clone(),
            aud: audience.to_owned(),
            sub: account.clone(),
            iat: now.as_secs(),
            exp: now
                .as_secs()
                .saturating_add(seconds)
                .min(self.public.not_after.as_secs()),
            jti: URL_SAFE_NO_PAD.encode(unique),
            cnf: Confirmation::of(fingerprint),
        };
        let header = Header {
            kid: Some(self.public.id.clone()),
            ..Header::new(Algorithm::EdDSA)
        };
        jsonwebtoken::encode(&header, &claims, &self.private).expect("claims are texts and numbers, and the key signs")
    }
}

/// Why a token is not believed. To its bearer every reason is the same 401.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT of ours.
    #[error("malformed token")]
    Malformed,
    /// Its key is not in the registry.
    #[error("token signed with an unknown key")]
    UnknownKey,
    /// Signature, algorithm, audience or issuer do not hold.
    #[error("token refused: {0}")]
    Refused(String),
    /// Its time is over, or has not come.
    #[error("token expired")]
    Expired,
    /// Its bearer shows another certificate.
    #[error("token is bound to another client certificate")]
    OtherCertificate,
}

/// Verifies a token: key, signature, audience, issuer and time. Whether its bearer may use it is [`check_bearer`]'s to say.
pub fn verify(
    token: &str,
    keys: &BTreeMap<String, Arc<TokenKey>>,
    audience: &str,
    now: Timestamp,
) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN {
        return Err(TokenError::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    let key = header.kid.and_then(|id| keys.get(&id)).ok_or(TokenError::UnknownKey)?;
    if now > key.not_after {
        return Err(TokenError::Expired);
    }
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[key.node.as_str()]);
    validation.set_required_spec_claims(&["exp", "aud", "iss"]);
    // Judged below, by store time.
    validation.validate_exp = false;
    let public = DecodingKey::from_ed_der(&key.public_key);
    let claims = jsonwebtoken::decode::<Claims>(token, &public, &validation)
        .map_err(|e| TokenError::Refused(e.to_string()))?
        .claims;
    // A second of grace: two front ends may round differently.
    if now.as_secs() >= claims.exp || now.as_secs() + 1 < claims.iat {
        return Err(TokenError::Expired);
    }
    Ok(claims)
}

/// Whether the token is used over a connection with the certificate that it is bound to, compared in constant time.
pub fn check_bearer(claims: &Claims, fingerprint: &Digest) -> Result<(), TokenError> {
    let shown = Confirmation::of(fingerprint);
    aws_lc_rs::constant_time::verify_slices_are_equal(shown.x5t_s256.as_bytes(), claims.cnf.x5t_s256.as_bytes())
        .map_err(|_| TokenError::OtherCertificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const FINGERPRINT: Digest = Digest([7; 32]);

    fn signer() -> TokenSigner {
        let node = NodeKey::generate("frontend-1".parse().unwrap());
        TokenSigner::of(&node, Timestamp::from_secs(NOW.as_secs() + 86_400))
    }

    #[test]
    fn a_key_follows_from_its_node_and_its_end_and_from_nothing_else() {
        let node = NodeKey::generate("frontend-1".parse().unwrap());
        let again = NodeKey::from_pkcs8(node.node().clone(), &node.to_pkcs8()).unwrap();
        let public = |node: &NodeKey, end| TokenSigner::of(node, Timestamp::from_secs(end)).public().clone();
        assert_eq!(public(&node, 7), public(&again, 7));
        assert_ne!(public(&node, 7).public_key, public(&node, 8).public_key);
        assert_ne!(public(&node, 7).public_key.0, node.public_key());
        let other = NodeKey::generate("frontend-1".parse().unwrap());
        assert_ne!(public(&node, 7).id, public(&other, 7).id);
    }

    fn keys(signer: &TokenSigner) -> BTreeMap<String, Arc<TokenKey>> {
        BTreeMap::from([(signer.public().id.clone(), Arc::new(signer.public().clone()))])
    }

    fn mint(signer: &TokenSigner) -> String {
        signer.mint(&"acme".parse().unwrap(), "hvca", &FINGERPRINT, NOW, 720)
    }

    #[test]
    fn a_token_is_verified_and_every_one_is_different() {
        let signer = signer();
        let (first, second) = (mint(&signer), mint(&signer));
        assert_ne!(first, second);
        let claims = verify(&first, &keys(&signer), "hvca", NOW).unwrap();
        assert_eq!(claims.sub.as_str(), "acme");
        assert_eq!(check_bearer(&claims, &FINGERPRINT), Ok(()));
        assert_eq!(
            check_bearer(&claims, &Digest([8; 32])),
            Err(TokenError::OtherCertificate)
        );
    }

    #[test]
    fn time_is_the_callers() {
        let signer = signer();
        let token = mint(&signer);
        let at = |secs| {
            verify(
                &token,
                &keys(&signer),
                "hvca",
                Timestamp::from_secs(NOW.as_secs() + secs),
            )
            .map(|_| ())
        };
        assert_eq!(at(719), Ok(()));
        assert_eq!(at(720), Err(TokenError::Expired));
        assert_eq!(at(-2), Err(TokenError::Expired));
        assert_eq!(at(86_401), Err(TokenError::Expired));
    }

    #[test]
    fn another_key_audience_or_issuer_is_refused() {
        let (ours, other) = (signer(), signer());
        let token = mint(&ours);
        assert_eq!(verify(&token, &keys(&other), "hvca", NOW), Err(TokenError::UnknownKey));
        assert!(matches!(
            verify(&token, &keys(&ours), "dss", NOW),
            Err(TokenError::Refused(_))
        ));
        // The name of one key with the value of another: somebody who can write a snapshot's map still needs the private half.
        let mut forged = other.public().clone();
        forged.id = ours.public().id.clone();
        let keys = BTreeMap::from([(forged.id.clone(), Arc::new(forged))]);
        assert!(matches!(
            verify(&token, &keys, "hvca", NOW),
            Err(TokenError::Refused(_))
        ));
    }

    #[test]
    fn altered_and_foreign_tokens_are_refused() {
        let signer = signer();
        let token = mint(&signer);
        for at in (0..token.len()).step_by(7) {
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert!(
                verify(&altered, &keys(&signer), "hvca", NOW).is_err(),
                "altered at {at}"
            );
        }
        for foreign in [
            "",
            "a.b.c",
            "eyJhbGciOiJub25lIn0.e30.",
            "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..a.b.c",
        ] {
            assert!(verify(foreign, &keys(&signer), "hvca", NOW).is_err(), "{foreign:?}");
        }
        assert_eq!(
            verify(&"x".repeat(MAX_TOKEN + 1), &keys(&signer), "hvca", NOW),
            Err(TokenError::Malformed)
        );
    }

    #[test]
    fn the_private_half_is_never_shown() {
        let signer = signer();
        assert_eq!(format!("{signer:?}"), format!("TokenSigner({})", signer.public().id));
    }
}
