//! Issuers: registering, disabling, enabling, showing.

use std::sync::Arc;

use domain::{
    id::IssuerId,
    issuer::{Binding, Issuer, IssuerState, Purpose, Standing, Usage},
    registry::{Change, Snapshot},
    time::Timestamp,
};
use pki::issuer::Registration;
use rcgen::PublicKeyData;
use wire::{
    admin::{Changed, IssuerDocument, LaneDocument, RegisterIssuer},
    operate::{BindIssuer, MarkDestroyed, MarkedDestroyed},
};

use crate::{Order, Registry, RegistryError, describe, past, profiles, token::blocking};

impl Registry {
    /// Registers an issuer. Its chain, its names, its times, its past and its key are checked before anything is changed.
    pub async fn register_issuer(&self, by: &str, request: RegisterIssuer) -> Result<Changed, RegistryError> {
        if self.current().await?.issuers.contains_key(&request.id) {
            return Err(RegistryError::Exists(format!("issuer {}", request.id)));
        }
        let issuer = self.read_issuer(&request)?;
        past::check(&request.past, &issuer)?;
        self.take_in(&request, &issuer).await?;
        let plan = |snapshot: &Snapshot| {
            if snapshot.issuers.contains_key(&issuer.id) {
                return Err(RegistryError::Exists(format!("issuer {}", issuer.id)));
            }
            let mut changes = vec![Change::PutIssuer {
                issuer: Box::new(issuer.clone()),
            }];
            if let Some(profile) = &request.profile {
                changes.extend(profiles::plan(snapshot, profile)?);
            }
            Ok(changes)
        };
        let warnings = past::warnings(&request.past);
        if request.dry_run {
            return self.dry_run(plan, warnings).await;
        }
        let (archive, known, kept) = (self.archive.clone(), request.past.clone(), issuer.clone());
        tokio::task::spawn_blocking(move || past::keep(&archive, &known, &kept))
            .await
            .map_err(|error| RegistryError::Internal(error.to_string()))??;
        let order = Order {
            by: by.into(),
            kind: "issuer_registered",
            subject: format!("issuer:{}", issuer.id),
            reason: request.reason.clone(),
        };
        Ok(self.commit(&order, plan).await?.into_document(warnings))
    }

    /// Takes issuance away from an issuer, or gives it back. Everything else about it stays as it is.
    pub async fn switch_issuer(
        &self,
        by: &str,
        id: &IssuerId,
        enabled: bool,
        reason: &str,
    ) -> Result<Changed, RegistryError> {
        let order = Order {
            by: by.into(),
            kind: if enabled { "issuer_enabled" } else { "issuer_disabled" },
            subject: format!("issuer:{id}"),
            reason: reason.into(),
        };
        let committed = self
            .commit(&order, |snapshot| {
                let issuer = snapshot.issuers.get(id).ok_or_else(|| unknown(id))?;
                switched(issuer, enabled, reason)
            })
            .await?;
        let warnings = match committed.snapshot.issuers.get(id) {
            Some(issuer) if enabled && self.clock.now().as_secs() > issuer.not_after => {
                let date = describe::date(issuer.not_after);
                vec![format!(
                    "a certificate of its chain expired on {date}: it issues nothing all the same"
                )]
            }
            _ => Vec::new(),
        };
        Ok(committed.into_document(warnings))
    }

    /// Binds an issuer to another token, whose key has to prove itself first. Signers use the first of its tokens that is not out.
    pub async fn bind_issuer(&self, by: &str, id: &IssuerId, request: BindIssuer) -> Result<Changed, RegistryError> {
        let snapshot = self.current().await?;
        let issuer = snapshot.issuers.get(id).ok_or_else(|| unknown(id))?;
        let binding = Binding {
            token: request.token,
            key: request.key,
        };
        self.prove(&Issuer {
            bindings: vec![binding.clone()],
            ..(**issuer).clone()
        })
        .await?;
        let plan = |snapshot: &Snapshot| {
            let issuer = snapshot.issuers.get(id).ok_or_else(|| unknown(id))?;
            bound(issuer, &binding)
        };
        if request.dry_run {
            return self.dry_run(plan, Vec::new()).await;
        }
        let order = Order {
            by: by.into(),
            kind: "issuer_bound",
            subject: format!("issuer:{id}"),
            reason: request.reason.clone(),
        };
        Ok(self.commit(&order, plan).await?.into_document(Vec::new()))
    }

    /// Writes down that an issuer's key is gone for ever, and refuses what waits for it. Nothing on any token is touched.
    pub async fn mark_issuer_destroyed(
        &self,
        by: &str,
        id: &IssuerId,
        request: MarkDestroyed,
    ) -> Result<MarkedDestroyed, RegistryError> {
        let snapshot = self.current().await?;
        let issuer = snapshot.issuers.get(id).ok_or_else(|| unknown(id))?;
        let lanes = self.lanes().await?.into_iter().filter(|lane| {
            let open = lane.queued + lane.signing + lane.parked;
            lane.lane.issuer == *id && open > 0
        });
        let lanes: Vec<LaneDocument> = lanes.collect();
        let jobs = lanes.iter().map(|lane| lane.queued + lane.signing).sum();
        if request.expect_count.is_some_and(|expected| expected != jobs) {
            return Err(RegistryError::State(format!(
                "{jobs} jobs of issuer {id} wait or are worked on, which is not the number that was expected; nothing was changed"
            )));
        }
        let accounts = self.issuer_document(&snapshot, issuer).accounts;
        let warnings = self.still_there(issuer).await;
        let plan = |snapshot: &Snapshot| {
            let issuer = snapshot.issuers.get(id).ok_or_else(|| unknown(id))?;
            Ok(destroyed(issuer, &request.reason))
        };
        let changed = if request.dry_run {
            self.dry_run(plan, warnings).await?
        } else {
            let order = Order {
                by: by.into(),
                kind: "issuer_destroyed",
                subject: format!("issuer:{id}"),
                reason: request.reason.clone(),
            };
            self.commit(&order, plan).await?.into_document(warnings)
        };
        let Changed {
            revision,
            changed,
            dry_run,
            warnings,
        } = changed;
        Ok(MarkedDestroyed {
            revision,
            changed,
            dry_run,
            accounts,
            lanes,
            jobs,
            warnings,
        })
    }

    /// Says on which tokens of this process the issuer's key still is.
    async fn still_there(&self, issuer: &Issuer) -> Vec<String> {
        let mut warnings = Vec::new();
        for Binding { token, key } in issuer.bindings.clone() {
            let Ok(keys) = self.token(&token) else { continue };
            let name = key.clone();
            match blocking(keys, move |keys| keys.find(&name)).await {
                Ok(Ok(Some(_))) => warnings.push(format!(
                    "key {key} is still on token {token}; this command destroys no key"
                )),
                Ok(Ok(None)) => {}
                Ok(Err(_)) | Err(_) => {
                    warnings.push(format!("token {token} did not say whether key {key} is still on it"));
                }
            }
        }
        warnings
    }

    /// Every issuer.
    pub async fn issuers(&self) -> Result<Vec<IssuerDocument>, RegistryError> {
        let snapshot = self.current().await?;
        Ok(snapshot
            .issuers
            .values()
            .map(|issuer| self.issuer_document(&snapshot, issuer))
            .collect())
    }

    /// One issuer.
    pub async fn issuer(&self, id: &IssuerId) -> Result<IssuerDocument, RegistryError> {
        let snapshot = self.current().await?;
        let issuer = snapshot.issuers.get(id).ok_or_else(|| unknown(id))?;
        Ok(self.issuer_document(&snapshot, issuer))
    }

    fn read_issuer(&self, request: &RegisterIssuer) -> Result<Issuer, RegistryError> {
        let registration = Registration {
            id: request.id.clone(),
            public_url: request.public_url.clone().unwrap_or_else(|| self.public_url.clone()),
            crl_shards: request.crl_shards,
            bindings: vec![Binding {
                token: request.token.clone(),
                key: request.key.clone(),
            }],
            usage: past::usage(&request.past),
        };
        let issuer = pki::issuer::import_pem(registration, &request.chain)
            .map_err(|error| RegistryError::Invalid(format!("chain: {error}")))?;
        if self.clock.now().as_secs() > issuer.not_after {
            return Err(RegistryError::Invalid(format!(
                "chain: a certificate in it expired on {}, and an expired issuer issues nothing",
                describe::date(issuer.not_after)
            )));
        }
        Ok(issuer)
    }

    /// Brings the private key into the token, if one came along, and has the key prove itself.
    async fn take_in(&self, request: &RegisterIssuer, issuer: &Issuer) -> Result<(), RegistryError> {
        if let Some(private_key) = &request.private_key {
            let pair = rcgen::KeyPair::try_from(private_key.0.0.as_slice())
                .map_err(|_| RegistryError::Invalid("key: the file is not an unencrypted PKCS#8 private key".into()))?;
            if pair.subject_public_key_info() != *issuer.public_key {
                return Err(RegistryError::Invalid(
                    "key: the file is not the private key of the chain's first certificate".into(),
                ));
            }
            if request.dry_run {
                return Ok(());
            }
            let token = self.token(&request.token)?;
            let (name, pkcs8) = (request.key.clone(), private_key.clone());
            // A repeat after a failure finds its own key there; the proof below tells it from a stranger's.
            blocking(token, move |keys| match keys.find(&name)? {
                Some(_) => Ok(()),
                None => keys.import(&name, &pkcs8.0).map(drop),
            })
            .await??;
        }
        self.prove(issuer).await
    }

    fn issuer_document(&self, snapshot: &Snapshot, issuer: &Arc<Issuer>) -> IssuerDocument {
        let fit = |binding: &Binding| {
            let token = self.keys.iter().find(|keys| *keys.token() == binding.token);
            token.is_some_and(|keys| keys.fit_for_real_ca())
        };
        IssuerDocument {
            id: issuer.id.clone(),
            state: state(issuer, self.clock.now()).into(),
            reason: issuer.reason.clone(),
            usage: issuer.usage,
            subject: describe::name(&issuer.subject),
            key_type: issuer.key_type,
            signature_algorithm: issuer.signature_algorithm,
            subject_key_id: hex::encode_upper(&*issuer.subject_key_id),
            not_after: issuer.not_after,
            bindings: issuer.bindings.clone(),
            fit_for_real_ca: issuer.bindings.iter().all(fit),
            crl_shards: issuer.crl_shards,
            public_url: issuer.public_url.clone(),
            accounts: snapshot
                .accounts
                .values()
                .filter(|account| account.issuer == issuer.id)
                .map(|account| account.id.clone())
                .collect(),
            chain: issuer
                .chain
                .iter()
                .map(|der| pki::pem::encode("CERTIFICATE", der))
                .collect(),
        }
    }
}

pub(crate) fn unknown(id: &IssuerId) -> RegistryError {
    RegistryError::Unknown(format!("issuer {id}"), "bulkhead issuer list")
}

/// The state as operators read it: `expired` is computed.
pub fn state(issuer: &Issuer, now: Timestamp) -> &'static str {
    match (issuer.state, issuer.standing(Purpose::EndEntity, now)) {
        (IssuerState::Destroyed, _) => "destroyed",
        (_, Standing::Expired) => "expired",
        (IssuerState::Disabled, _) => "disabled",
        (IssuerState::Enabled, _) => "enabled",
    }
}

/// The issuer with issuance taken away or given back; nothing if it is so already.
fn switched(issuer: &Issuer, enabled: bool, reason: &str) -> Result<Vec<Change>, RegistryError> {
    let state = if enabled {
        IssuerState::Enabled
    } else {
        IssuerState::Disabled
    };
    if issuer.state == IssuerState::Destroyed {
        return Err(RegistryError::State(format!(
            "issuer {} is destroyed, which is final",
            issuer.id
        )));
    }
    if issuer.state == state && issuer.usage.issue == enabled {
        return Ok(Vec::new());
    }
    let mut next = issuer.clone();
    next.state = state;
    next.usage.issue = enabled;
    next.reason = Some(reason.to_owned());
    Ok(vec![Change::PutIssuer { issuer: Box::new(next) }])
}

/// The issuer without a key: it signs nothing any more, for ever; nothing if it is so already.
fn destroyed(issuer: &Issuer, reason: &str) -> Vec<Change> {
    if issuer.state == IssuerState::Destroyed {
        return Vec::new();
    }
    let mut next = issuer.clone();
    next.state = IssuerState::Destroyed;
    next.usage = Usage {
        issue: false,
        crl: false,
        ocsp: false,
    };
    next.reason = Some(reason.to_owned());
    vec![Change::PutIssuer { issuer: Box::new(next) }]
}

/// The issuer with one more place where its key is; nothing if it is so already.
fn bound(issuer: &Issuer, binding: &Binding) -> Result<Vec<Change>, RegistryError> {
    if issuer.bindings.contains(binding) {
        return Ok(Vec::new());
    }
    if issuer.bindings.iter().any(|other| other.token == binding.token) {
        return Err(RegistryError::State(format!(
            "issuer {} is bound to another key on token {}",
            issuer.id, binding.token
        )));
    }
    let mut next = issuer.clone();
    next.bindings.push(binding.clone());
    Ok(vec![Change::PutIssuer { issuer: Box::new(next) }])
}
