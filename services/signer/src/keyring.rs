//! Which issuers this signer signs for: those of the registry whose key is on a token that it has.

use std::{collections::BTreeMap, fmt, sync::Arc};

use domain::{
    dispatch::{ProbeBy, Serving, cost},
    failure::Scope,
    id::{IssuerId, TokenId},
    issuer::{Binding, Issuer, IssuerState},
    lane::{Class, Lane},
    registry::Snapshot,
};
use keys::{Keys, KeysError};
use pki::{certificate::ChainVerifier, lint::LintContext};

/// Issuers that are named in one line of the log.
const LISTED: usize = 20;

/// An issuer whose key is here.
pub struct Held {
    /// As the registry has it.
    pub issuer: Arc<Issuer>,
    /// Verifies what is signed, under the issuer's whole chain.
    pub chain: ChainVerifier,
    /// Judges what is to be signed.
    pub lint: LintContext,
    token: Arc<dyn Keys>,
    key: String,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.issuer.id, self.token.token())
    }
}

impl Held {
    /// Signs with the issuer's key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeysError> {
        self.token.sign(&self.key, self.issuer.signature_algorithm, message)
    }

    /// The token that the key is on.
    pub fn token(&self) -> &TokenId {
        self.token.token()
    }
}

/// Everything that can be signed with here, and what should be but cannot.
#[derive(Debug, Default)]
pub struct Keyring {
    held: BTreeMap<IssuerId, Arc<Held>>,
    missing: BTreeMap<IssuerId, String>,
    tokens: BTreeMap<TokenId, Arc<dyn Keys>>,
}

impl Keyring {
    /// Looks every issuer's key up on the tokens, last on those that are `out`. Blocks. What `before` has is not looked at anew unless
    /// the issuer has changed or its key is gone.
    pub fn look(snapshot: &Snapshot, tokens: &[Arc<dyn Keys>], out: &[TokenId], before: &Self) -> Self {
        let mut ring = Self {
            tokens: tokens
                .iter()
                .map(|token| (token.token().clone(), token.clone()))
                .collect(),
            ..Self::default()
        };
        let mut sick = BTreeMap::new();
        for (id, issuer) in &snapshot.issuers {
            if issuer.state == IssuerState::Destroyed {
                continue;
            }
            match find(issuer, tokens, out, before.held.get(id), &mut sick) {
                Ok(Some(held)) => drop(ring.held.insert(id.clone(), held)),
                Ok(None) => {}
                Err(reason) => drop(ring.missing.insert(id.clone(), reason)),
            }
        }
        ring
    }

    /// The issuer, if its key is here.
    pub fn get(&self, issuer: &IssuerId) -> Option<&Arc<Held>> {
        self.held.get(issuer)
    }

    /// A token that is here.
    pub fn token_named(&self, token: &TokenId) -> Option<&Arc<dyn Keys>> {
        self.tokens.get(token)
    }

    /// Issuers whose keys are here, on other tokens than these.
    pub fn issuers_beside(&self, out: &[TokenId]) -> Vec<IssuerId> {
        let held = self.held.iter().filter(|(_, held)| !out.contains(held.token()));
        held.map(|(issuer, _)| issuer.clone()).collect()
    }

    /// Issuers that are bound to a token of this signer and cannot be signed for, with the reason.
    pub fn missing(&self) -> &BTreeMap<IssuerId, String> {
        &self.missing
    }

    /// Says which issuers are signed for from now on, and which no longer; of many, the first ones.
    pub fn say_what_changed(&self, before: &Self) {
        let new = || self.held.keys().filter(|issuer| !before.held.contains_key(*issuer));
        let gone = || before.held.keys().filter(|issuer| !self.held.contains_key(*issuer));
        if new().next().is_some() || gone().next().is_some() {
            tracing::info!(
                held = self.held.len(),
                new = %listed(new()),
                gone = %listed(gone()),
                "this signer signs for {} issuers",
                self.held.len()
            );
        }
    }

    /// The lanes that are served: every class of every issuer whose key is here.
    pub fn lanes(&self, carrier: impl Fn(&Lane) -> domain::lane::Carrier) -> Vec<(Lane, Serving)> {
        let lanes = self.held.values().flat_map(|held| {
            Class::ALL.map(|class| {
                let issuer = held.issuer.id.clone();
                (Lane { issuer, class }, held)
            })
        });
        lanes
            .map(|(lane, held)| {
                let serving = Serving {
                    carrier: carrier(&lane),
                    cost: cost(held.issuer.key_type),
                    token: held.token().clone(),
                    enabled: held.issuer.state == IssuerState::Enabled,
                    probe_by: ProbeBy::OwnKey,
                };
                (lane, serving)
            })
            .collect()
    }
}

/// Names in a line, as far as one has room.
fn listed<'i>(issuers: impl Iterator<Item = &'i IssuerId>) -> String {
    let mut names: Vec<&str> = issuers.take(LISTED + 1).map(IssuerId::as_str).collect();
    if names.len() > LISTED {
        names[LISTED] = "...";
    }
    names.join(" ")
}

/// The issuer's key on the first of its tokens that is not out and has it, else on the first that has it; `None` if none of them is here. A token that has failed as a whole goes into
/// `sick`, and is not asked for the keys of all other issuers as well: each of them would wait as long.
fn find(
    issuer: &Arc<Issuer>,
    tokens: &[Arc<dyn Keys>],
    out: &[TokenId],
    before: Option<&Arc<Held>>,
    sick: &mut BTreeMap<TokenId, String>,
) -> Result<Option<Arc<Held>>, String> {
    let mut reason = None;
    let is_in = |binding: &&Binding| !out.contains(&binding.token);
    let (first, last): (Vec<&Binding>, Vec<&Binding>) = issuer.bindings.iter().partition(is_in);
    for binding in first.into_iter().chain(last) {
        let Some(token) = tokens.iter().find(|token| *token.token() == binding.token) else {
            continue;
        };
        if let Some(failure) = sick.get(&binding.token) {
            reason = Some(failure.clone());
            continue;
        }
        match token.find(&binding.key) {
            Ok(Some(key)) if key.public_key == *issuer.public_key => {
                if let Some(before) = before
                    && before.issuer == *issuer
                    && before.key == binding.key
                    && before.token.token() == token.token()
                {
                    return Ok(Some(before.clone()));
                }
                let chain = ChainVerifier::new(issuer).map_err(|error| error.to_string())?;
                return Ok(Some(Arc::new(Held {
                    issuer: issuer.clone(),
                    chain,
                    lint: LintContext::new(issuer),
                    token: token.clone(),
                    key: binding.key.clone(),
                })));
            }
            Ok(Some(_)) => {
                reason = Some(format!("key {} on token {} is another key", binding.key, binding.token));
            }
            Ok(None) => reason = Some(format!("key {} is not on token {}", binding.key, binding.token)),
            Err(error) => {
                if error.failure.scope() == Scope::Token {
                    sick.insert(binding.token.clone(), error.to_string());
                }
                reason = Some(error.to_string());
            }
        }
    }
    reason.map_or(Ok(None), Err)
}
