//! Accounts: API clients and their credentials.

use aws_lc_rs::rand;
use domain::{
    bytes::Digest,
    issuer::{Account, Api},
    registry::{Change, Snapshot},
    time::Timestamp,
};
use wire::admin::{AccountDocument, AddAccount, NewAccount};

use crate::{Order, Registry, RegistryError};

/// Client certificates that an account may have.
const MOST_CLIENT_CERTIFICATES: usize = 16;

/// Both halves of an account's credential, fresh.
pub struct Credential {
    /// Public half: 16 hexadecimal digits.
    pub api_key: String,
    /// Secret half: 40 hexadecimal digits, 160 bits.
    pub api_secret: String,
}

impl Credential {
    /// New random halves.
    pub fn generate() -> Result<Self, RegistryError> {
        Ok(Self {
            api_key: random_hex::<8>()?,
            api_secret: random_hex::<20>()?,
        })
    }

    /// What the registry keeps of the secret.
    pub fn digest(&self) -> Digest {
        pki::sha256(self.api_secret.as_bytes())
    }
}

fn random_hex<const N: usize>() -> Result<String, RegistryError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| RegistryError::Internal("the operating system gives no randomness".into()))?;
    Ok(hex::encode(bytes))
}

impl Registry {
    /// Makes an account. Its secret is in the answer and nowhere else.
    pub async fn add_account(&self, by: &str, request: AddAccount) -> Result<NewAccount, RegistryError> {
        let credential = Credential::generate()?;
        let account = Account {
            id: request.id,
            api: Api::Hvca,
            api_key: credential.api_key.clone(),
            api_secret: credential.digest(),
            client_certificates: fingerprints(&request.client_certificates)?,
            issuer: request.issuer,
            profile: request.profile,
            issuance_quota: request.issuance_quota,
            requests_per_second: request.requests_per_second,
            jobs_in_flight: request.jobs_in_flight,
            tokens_not_before: Timestamp::from_millis(0),
            enabled: true,
        };
        if account.requests_per_second == 0 || account.jobs_in_flight == 0 {
            return Err(RegistryError::Invalid(
                "requests_per_second, jobs_in_flight: must be at least 1, or the account could do nothing".into(),
            ));
        }
        let order = Order {
            by: by.into(),
            kind: "account_added",
            subject: format!("account:{}", account.id),
            reason: request.reason,
        };
        let committed = self
            .commit(&order, |snapshot: &Snapshot| {
                if snapshot.accounts.contains_key(&account.id) {
                    return Err(RegistryError::Exists(format!("account {}", account.id)));
                }
                Ok(vec![Change::PutAccount {
                    account: Box::new(account.clone()),
                }])
            })
            .await?;
        Ok(NewAccount {
            account: document(&account),
            api_secret: credential.api_secret,
            revision: committed.revision,
        })
    }

    /// Every account.
    pub async fn accounts(&self) -> Result<Vec<AccountDocument>, RegistryError> {
        let snapshot = self.current().await?;
        Ok(snapshot.accounts.values().map(|account| document(account)).collect())
    }
}

fn document(account: &Account) -> AccountDocument {
    AccountDocument {
        id: account.id.clone(),
        api: account.api,
        api_key: account.api_key.clone(),
        issuer: account.issuer.clone(),
        profile: account.profile.clone(),
        client_certificates: account
            .client_certificates
            .iter()
            .map(|digest| format!("{digest:?}"))
            .collect(),
        issuance_quota: account.issuance_quota,
        requests_per_second: account.requests_per_second,
        jobs_in_flight: account.jobs_in_flight,
        enabled: account.enabled,
    }
}

/// Fingerprints of client certificates in PEM.
fn fingerprints(certificates: &[String]) -> Result<Vec<Digest>, RegistryError> {
    let mut fingerprints = Vec::new();
    for (number, text) in (1..).zip(certificates) {
        let wrong = |what: String| RegistryError::Invalid(format!("client_certificates: certificate {number} {what}"));
        let der = pki::pem::decode("CERTIFICATE", text).map_err(|error| wrong(format!("is not PEM: {error}")))?;
        pki::certificate::read(&der).map_err(|error| wrong(format!("cannot be read: {error}")))?;
        fingerprints.push(pki::sha256(&der));
    }
    fingerprints.sort_unstable();
    fingerprints.dedup();
    if fingerprints.is_empty() || fingerprints.len() > MOST_CLIENT_CERTIFICATES {
        return Err(RegistryError::Invalid(format!(
            "client_certificates: give from 1 to {MOST_CLIENT_CERTIFICATES}, for nobody logs in without one"
        )));
    }
    Ok(fingerprints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_have_the_documented_shape_and_never_repeat() {
        let (one, other) = (Credential::generate().unwrap(), Credential::generate().unwrap());
        for credential in [&one, &other] {
            assert_eq!((credential.api_key.len(), credential.api_secret.len()), (16, 40));
            assert!(credential.api_secret.bytes().all(|b| b.is_ascii_hexdigit()));
        }
        assert_ne!(one.api_secret, other.api_secret);
        assert_ne!(one.digest(), other.digest());
    }

    #[test]
    fn an_account_without_a_client_certificate_is_refused() {
        assert!(matches!(fingerprints(&[]), Err(RegistryError::Invalid(_))));
        assert!(matches!(
            fingerprints(&["no PEM".into()]),
            Err(RegistryError::Invalid(_))
        ));
    }
}
