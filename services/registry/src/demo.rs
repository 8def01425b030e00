//! The demo hierarchy of a new installation. Its keys are soft, its names say DO NOT TRUST, and nobody must.

use std::time::Duration;

use domain::{
    bytes::{Blob, Digest},
    id::{AccountId, IssuerId, TokenId},
    issuer::{Account, Api, Binding, Issuer, Usage},
    key::KeyType,
    policy::KeyAlgorithm,
    registry::{Change, Snapshot},
    template,
    time::Timestamp,
};
use keys::{KeyInfo, Keys, KeysError};
use pki::issuer::Registration;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyUsagePurpose, SerialNumber,
};

use runtime::config::Accounts;

use crate::{Committed, Credential, Registry, RegistryError, token::blocking, token_key::TokenKey};

/// What every name in the demo hierarchy says.
const WARNING: &str = "Bulkhead Demo - DO NOT TRUST";
const YEAR: Duration = Duration::from_hours(24 * 365);
/// A root lives longer than what is below it.
const ROOT_YEARS: u32 = 20;
const ISSUER_YEARS: u32 = 10;
const CRL_SHARDS: u16 = 16;

/// One leg of the hierarchy: a root, an issuer, a profile and an account.
#[derive(Debug, Clone, Copy)]
struct Leg {
    name: &'static str,
    key_type: KeyType,
    algorithm: KeyAlgorithm,
    signature: &'static str,
}

const LEGS: [Leg; 2] = [
    Leg {
        name: "demo-p256",
        key_type: KeyType::P256,
        algorithm: KeyAlgorithm::Ecdsa,
        signature: "ECDSA",
    },
    Leg {
        name: "demo-rsa2048",
        key_type: KeyType::Rsa2048,
        algorithm: KeyAlgorithm::Rsa,
        signature: "RSA",
    },
];

/// The accounts of the demo hierarchy, in the order in which they are shown.
pub fn accounts() -> impl Iterator<Item = AccountId> {
    LEGS.iter().map(|leg| leg.name.parse().expect("demo names are names"))
}

impl Registry {
    /// Makes the demo hierarchy if the registry has no issuer yet. Safe to repeat after a crash: keys that are there are used.
    ///
    /// Returns the accounts that are new, each with its credential.
    pub async fn make_demo(
        &self,
        token: &TokenId,
        client_certificate: Digest,
        limits: &Accounts,
    ) -> Result<Vec<(Account, Credential)>, RegistryError> {
        if !self.current().await?.issuers.is_empty() {
            return Ok(Vec::new());
        }
        let (keys, now, public_url) = (self.token(token)?, self.clock.now(), self.public_url.clone());
        let issuers = blocking(keys, move |keys| {
            LEGS.iter()
                .map(|leg| issuer(keys, *leg, now, &public_url))
                .collect::<Result<Vec<_>, _>>()
        })
        .await??;
        let mut accounts = Vec::new();
        let mut changes = Vec::new();
        for (leg, issuer) in LEGS.iter().zip(issuers) {
            self.prove(&issuer).await?;
            let id = leg.name.parse().expect("demo names are names");
            let lengths = vec![leg.key_type.bits()];
            let profile = template::tls_server(id, leg.algorithm, lengths, leg.signature, "SHA-256");
            let credential = Credential::generate()?;
            let account = Account {
                id: leg.name.parse().expect("demo names are names"),
                api: Api::Hvca,
                api_key: credential.api_key.clone(),
                api_secret: credential.digest(),
                client_certificates: vec![client_certificate],
                issuer: issuer.id.clone(),
                profile: profile.id.clone(),
                issuance_quota: limits.issuance_quota,
                requests_per_second: limits.requests_per_second,
                jobs_in_flight: limits.jobs_in_flight,
                tokens_not_before: Timestamp::from_millis(0),
                enabled: true,
            };
            changes.push(Change::PutIssuer {
                issuer: Box::new(issuer),
            });
            changes.push(Change::PutProfile {
                profile: Box::new(profile),
            });
            changes.push(Change::PutAccount {
                account: Box::new(account.clone()),
            });
            accounts.push((account, credential));
        }
        let committed = self
            .commit(
                &self.own_order("demo_made", "installation", "first start"),
                |snapshot: &Snapshot| {
                    Ok(if snapshot.issuers.is_empty() {
                        changes.clone()
                    } else {
                        Vec::new()
                    })
                },
            )
            .await?;
        Ok(if committed.changed { accounts } else { Vec::new() })
    }

    /// Brings a demo account up to date: another client certificate, and another secret if the one it had is lost. `None` if there is
    /// nothing to do or no such account.
    pub async fn refresh_demo_account(
        &self,
        id: &AccountId,
        client_certificate: Digest,
        secret_is_lost: bool,
    ) -> Result<Option<Credential>, RegistryError> {
        let credential = Credential::generate()?;
        let committed: Committed = self
            .commit(
                &self.own_order("demo_refreshed", &format!("account:{id}"), "start of the program"),
                |snapshot: &Snapshot| {
                    let Some(known) = snapshot.accounts.get(id) else {
                        return Ok(Vec::new());
                    };
                    let mut account = (**known).clone();
                    if !account.client_certificates.contains(&client_certificate) {
                        account.client_certificates = vec![client_certificate];
                    }
                    if secret_is_lost {
                        account.api_key.clone_from(&credential.api_key);
                        account.api_secret = credential.digest();
                    }
                    Ok(if account == **known {
                        Vec::new()
                    } else {
                        vec![Change::PutAccount {
                            account: Box::new(account),
                        }]
                    })
                },
            )
            .await?;
        Ok((committed.changed && secret_is_lost).then_some(credential))
    }
}

/// A root and, signed by it, an issuer.
fn issuer(keys: &dyn Keys, leg: Leg, now: Timestamp, public_url: &str) -> Result<Issuer, RegistryError> {
    let suffix = leg.name.trim_start_matches("demo-");
    let root_info = find_or_generate(keys, &format!("demo-root-{suffix}"), leg.key_type)?;
    let info = find_or_generate(keys, leg.name, leg.key_type)?;
    let root_key = TokenKey::new(keys, &root_info).map_err(|e| encoding(&e))?;
    let key = TokenKey::new(keys, &info).map_err(|e| encoding(&e))?;
    let failed = |error: rcgen::Error| root_key.failure().map_or_else(|| encoding(&error), RegistryError::from);

    let root_params = params(
        &format!("Demo Root {}", leg.key_type),
        ROOT_YEARS,
        BasicConstraints::Unconstrained,
        now,
    )?;
    let root = root_params.self_signed(&root_key).map_err(failed)?;
    let above = rcgen::Issuer::from_params(&root_params, &root_key);
    let mut below = params(
        &format!("Demo Issuer {}", leg.key_type),
        ISSUER_YEARS,
        BasicConstraints::Constrained(0),
        now,
    )?;
    below.use_authority_key_identifier_extension = true;
    let own = below.signed_by(&key, &above).map_err(failed)?;

    let id: IssuerId = leg.name.parse().expect("demo names are names");
    let registration = Registration {
        id,
        public_url: public_url.to_owned(),
        crl_shards: CRL_SHARDS,
        bindings: vec![Binding {
            token: keys.token().clone(),
            key: info.name.clone(),
        }],
        usage: Usage {
            issue: true,
            crl: true,
            ocsp: true,
        },
    };
    let chain = vec![Blob(own.der().to_vec()), Blob(root.der().to_vec())];
    pki::issuer::import(registration, chain, Vec::new())
        .map_err(|error| RegistryError::Internal(format!("demo hierarchy: {error}")))
}

fn params(
    common_name: &str,
    years: u32,
    constraints: BasicConstraints,
    now: Timestamp,
) -> Result<CertificateParams, RegistryError> {
    let mut name = DistinguishedName::new();
    name.push(
        DnType::CountryName,
        DnValue::PrintableString("XX".try_into().map_err(|e| encoding(&e))?),
    );
    name.push(DnType::OrganizationName, WARNING);
    name.push(DnType::CommonName, format!("{common_name} - DO NOT TRUST"));
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial)
        .map_err(|_| RegistryError::Internal("the operating system gives no randomness".into()))?;
    serial[0] = 2;
    let time = |at: Timestamp| {
        time::OffsetDateTime::from_unix_timestamp(at.as_secs())
            .map_err(|error| RegistryError::Internal(error.to_string()))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = time(now - Duration::from_hours(1))?;
    params.not_after = time(now + YEAR * years)?;
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    Ok(params)
}

fn find_or_generate(keys: &dyn Keys, name: &str, key_type: KeyType) -> Result<KeyInfo, KeysError> {
    match keys.find(name)? {
        Some(info) => Ok(info),
        None => keys.generate(name, key_type),
    }
}

fn encoding(error: &rcgen::Error) -> RegistryError {
    RegistryError::Internal(format!("demo hierarchy: {error}"))
}
