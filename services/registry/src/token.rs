//! Keys on tokens: making them, taking them in, asking for certificates with them, and proving that they sign.

use std::sync::Arc;

use domain::{
    id::TokenId,
    issuer::{Binding, Issuer},
    time::Timestamp,
};
use keys::{KeyInfo, Keys};
use wire::admin::{Csr, GenerateKey, KeyReport, MakeCsr};

use crate::{Order, Registry, RegistryError, subject};

/// What a key signs to prove that it is the one of the certificate. It can never be taken for anything else that is signed.
const PROOF: &[u8] = b"bulkhead proof of possession: this is no certificate, no CRL and no OCSP response";

impl Registry {
    /// Makes a key on a token.
    pub async fn generate_key(&self, by: &str, request: GenerateKey) -> Result<KeyReport, RegistryError> {
        let token = self.token(&request.token)?;
        let order = Order {
            by: by.into(),
            kind: "key_generated",
            subject: format!("key:{}/{}", request.token, request.key),
            reason: request.reason.clone(),
        };
        let (name, key_type) = (request.key.clone(), request.key_type);
        let info = blocking(token.clone(), move |keys| keys.generate(&name, key_type)).await??;
        let made_at = self.clock.now();
        let report = report(&*token, &info, by, made_at, request.reason);
        self.audit.record(&order, &report.public_key_sha256, 1).await?;
        Ok(report)
    }

    /// A PKCS#10 request (RFC 2986) with the key's signature.
    pub async fn make_csr(&self, request: MakeCsr) -> Result<Csr, RegistryError> {
        let token = self.token(&request.token)?;
        let name = subject::parse(&request.subject).map_err(|error| RegistryError::Invalid(error.to_string()))?;
        let info = self.key(&request.token, &request.key).await?;
        let encoding = |error: pki::certificate::PrepareError| RegistryError::Invalid(format!("subject: {error}"));
        let tbs = pki::csr::to_be_signed(&name, &info.public_key).map_err(encoding)?;
        let (algorithm, message) = (info.key_type.signature_algorithm(), tbs.clone());
        let signature = blocking(token, move |keys| keys.sign(&info.name, algorithm, &message)).await??;
        let csr = pki::pem::encode("CERTIFICATE REQUEST", &pki::csr::seal(&tbs, algorithm, &signature));
        Ok(Csr { csr })
    }

    /// The token of that name.
    pub(crate) fn token(&self, token: &TokenId) -> Result<Arc<dyn Keys>, RegistryError> {
        self.keys
            .iter()
            .find(|keys| keys.token() == token)
            .cloned()
            .ok_or_else(|| {
                let known: Vec<_> = self.keys.iter().map(|keys| keys.token().as_str()).collect();
                RegistryError::Invalid(if known.is_empty() {
                    format!(
                        "token: {token} is not at hand, for this control process has no token; add [[token]] to its configuration, or \
                         ask a control process beside the token (--context)"
                    )
                } else {
                    format!("token: {token} is not one of this process: {}", known.join(", "))
                })
            })
    }

    /// A key that must be there.
    pub(crate) async fn key(&self, token: &TokenId, key: &str) -> Result<KeyInfo, RegistryError> {
        let name = key.to_owned();
        let found = blocking(self.token(token)?, move |keys| keys.find(&name)).await??;
        found.ok_or_else(|| {
            RegistryError::Invalid(format!(
                "key: {key} is not on token {token}; make it with `issuer keygen`, or give the private key's file"
            ))
        })
    }

    /// Signs with each of the issuer's keys and verifies under the public key of its certificate.
    pub(crate) async fn prove(&self, issuer: &Issuer) -> Result<(), RegistryError> {
        for binding in &issuer.bindings {
            let Binding { token, key } = binding.clone();
            let algorithm = issuer.signature_algorithm;
            let info = self.key(&token, &key).await?;
            if *info.public_key != *issuer.public_key {
                return Err(RegistryError::Invalid(format!(
                    "key: {key} on token {token} is not the key of the issuer's certificate"
                )));
            }
            let signature = blocking(self.token(&token)?, move |keys| keys.sign(&key, algorithm, PROOF)).await??;
            pki::signature::verify(&issuer.public_key, algorithm, PROOF, &signature).map_err(|error| {
                RegistryError::Invalid(format!(
                    "key: a signature by {} on token {token} does not verify: {error}",
                    binding.key
                ))
            })?;
        }
        Ok(())
    }
}

/// Runs a blocking call on a token where it holds up nobody.
pub(crate) async fn blocking<T, F>(token: Arc<dyn Keys>, call: F) -> Result<T, RegistryError>
where
    T: Send + 'static,
    F: FnOnce(&dyn Keys) -> T + Send + 'static,
{
    tokio::task::spawn_blocking(move || call(&*token))
        .await
        .map_err(|error| RegistryError::Internal(format!("a token's call did not end: {error}")))
}

fn report(keys: &dyn Keys, info: &KeyInfo, by: &str, made_at: Timestamp, reason: String) -> KeyReport {
    KeyReport {
        token: keys.token().clone(),
        key: info.name.clone(),
        key_type: info.key_type,
        public_key: pki::pem::encode("PUBLIC KEY", &info.public_key),
        public_key_sha256: format!("{:?}", pki::sha256(&info.public_key)),
        fit_for_real_ca: keys.fit_for_real_ca(),
        made_by: by.into(),
        made_at,
        reason,
    }
}
