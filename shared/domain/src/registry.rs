//! The registry's state as one immutable, numbered value, and the changes that lead from one to the next.

use std::{collections::BTreeMap, collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    bytes::Digest,
    id::{AccountId, IssuerId, NodeId, OperatorId, ProfileId},
    issuer::{Account, Invitation, Issuer, IssuerState, Node, Operator, Profile, TokenKey},
};

/// One change. A revision carries one or more, applied in order, all or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "each variant carries the one thing it is named for")]
pub enum Change {
    PutIssuer {
        issuer: Box<Issuer>,
    },
    PutProfile {
        profile: Box<Profile>,
    },
    PutAccount {
        account: Box<Account>,
    },
    PutNode {
        node: Node,
    },
    PutInvitation {
        invitation: Invitation,
    },
    /// Used, or run out.
    RemoveInvitation {
        node: NodeId,
    },
    PutTokenKey {
        key: TokenKey,
    },
    RemoveTokenKey {
        id: String,
    },
    PutOperator {
        operator: Operator,
    },
    /// A public key (SHA-256 of its SPKI) that must never be certified.
    BlockKey {
        spki: Digest,
    },
}

/// Why a change does not fit the state it is applied to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// A profile's version must grow.
    #[error(
        "profile {profile}: version {offered} does not follow version {current}; read the profile again and repeat the change"
    )]
    StaleProfile {
        /// Which.
        profile: ProfileId,
        /// In force.
        current: u32,
        /// Offered.
        offered: u32,
    },
    /// Destroyed is for ever.
    #[error("issuer {0} is destroyed, which is final")]
    Destroyed(IssuerId),
    /// The shard of a certificate may never change.
    #[error("issuer {0}: the number of CRL shards is fixed for life")]
    ShardsFixed(IssuerId),
    /// Name and key make the issuer.
    #[error("issuer {0}: subject and key are fixed; register another issuer for another key")]
    IdentityFixed(IssuerId),
    /// An account names something unknown.
    #[error("account {account}: {what} is not registered; add it first")]
    Unknown {
        /// Which.
        account: AccountId,
        /// What is missing.
        what: String,
    },
    /// Another account has the key.
    #[error("account {0}: its api_key belongs to another account")]
    ApiKeyTaken(AccountId),
}

/// The whole state at one revision. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Number of the last revision applied; 0 before the first.
    pub revision: u64,
    /// Issuers.
    pub issuers: BTreeMap<IssuerId, Arc<Issuer>>,
    /// Profiles.
    pub profiles: BTreeMap<ProfileId, Arc<Profile>>,
    /// Accounts, in the order in which they were added for display, by name here.
    pub accounts: BTreeMap<AccountId, Arc<Account>>,
    /// Accounts by `api_key`.
    pub api_keys: BTreeMap<String, AccountId>,
    /// Nodes.
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Invitations that are open, by the node that is invited.
    pub invitations: BTreeMap<NodeId, Arc<Invitation>>,
    /// Token keys by `kid`.
    pub token_keys: BTreeMap<String, Arc<TokenKey>>,
    /// Operators.
    pub operators: BTreeMap<OperatorId, Arc<Operator>>,
    /// Public keys that must not be certified, by SHA-256 of the SPKI.
    pub blocked_keys: BTreeSet<Digest>,
}

impl Snapshot {
    /// The state after `changes`, numbered one higher.
    pub fn next(&self, changes: &[Change]) -> Result<Self, ChangeRefused> {
        let mut next = self.clone();
        next.advance(changes)?;
        Ok(next)
    }

    /// Becomes the state after `changes`, numbered one higher: for folding many revisions. After an error the value has some of the
    /// changes and must be dropped.
    pub fn advance(&mut self, changes: &[Change]) -> Result<(), ChangeRefused> {
        for change in changes {
            self.apply(change)?;
        }
        self.revision += 1;
        Ok(())
    }

    fn apply(&mut self, change: &Change) -> Result<(), ChangeRefused> {
        match change {
            Change::PutIssuer { issuer } => self.put_issuer(issuer)?,
            Change::PutProfile { profile } => {
                let current = self.profiles.get(&profile.id).map_or(0, |p| p.version);
                if profile.version != current + 1 {
                    let (profile, offered) = (profile.id.clone(), profile.version);
                    return Err(ChangeRefused::StaleProfile {
                        profile,
                        current,
                        offered,
                    });
                }
                self.profiles
                    .insert(profile.id.clone(), Arc::new(profile.as_ref().clone()));
            }
            Change::PutAccount { account } => self.put_account(account)?,
            Change::PutNode { node } => {
                self.nodes.insert(node.id.clone(), Arc::new(node.clone()));
            }
            Change::PutInvitation { invitation } => {
                self.invitations
                    .insert(invitation.node.clone(), Arc::new(invitation.clone()));
            }
            Change::RemoveInvitation { node } => {
                self.invitations.remove(node);
            }
            Change::PutTokenKey { key } => {
                self.token_keys.insert(key.id.clone(), Arc::new(key.clone()));
            }
            Change::RemoveTokenKey { id } => {
                self.token_keys.remove(id);
            }
            Change::PutOperator { operator } => {
                self.operators.insert(operator.id.clone(), Arc::new(operator.clone()));
            }
            Change::BlockKey { spki } => {
                self.blocked_keys.insert(*spki);
            }
        }
        Ok(())
    }

    fn put_issuer(&mut self, issuer: &Issuer) -> Result<(), ChangeRefused> {
        if let Some(current) = self.issuers.get(&issuer.id) {
            if current.state == IssuerState::Destroyed {
                return Err(ChangeRefused::Destroyed(issuer.id.clone()));
            }
            if current.crl_shards != issuer.crl_shards {
                return Err(ChangeRefused::ShardsFixed(issuer.id.clone()));
            }
            if current.subject != issuer.subject || current.public_key != issuer.public_key {
                return Err(ChangeRefused::IdentityFixed(issuer.id.clone()));
            }
        }
        self.issuers.insert(issuer.id.clone(), Arc::new(issuer.clone()));
        Ok(())
    }

    fn put_account(&mut self, account: &Account) -> Result<(), ChangeRefused> {
        let unknown = |what: String| ChangeRefused::Unknown {
            account: account.id.clone(),
            what,
        };
        if !self.issuers.contains_key(&account.issuer) {
            return Err(unknown(format!("issuer {}", account.issuer)));
        }
        if !self.profiles.contains_key(&account.profile) {
            return Err(unknown(format!("profile {}", account.profile)));
        }
        if self
            .api_keys
            .get(&account.api_key)
            .is_some_and(|owner| *owner != account.id)
        {
            return Err(ChangeRefused::ApiKeyTaken(account.id.clone()));
        }
        if let Some(before) = self.accounts.insert(account.id.clone(), Arc::new(account.clone())) {
            self.api_keys.remove(&before.api_key);
        }
        self.api_keys.insert(account.api_key.clone(), account.id.clone());
        Ok(())
    }

    /// The account, its issuer and its profile: what a request is judged by. `None` if any of them is missing.
    pub fn terms(&self, account: &AccountId) -> Option<Terms> {
        let account = self.accounts.get(account)?.clone();
        let issuer = self.issuers.get(&account.issuer)?.clone();
        let profile = self.profiles.get(&account.profile)?.clone();
        Some(Terms {
            account,
            issuer,
            profile,
        })
    }
}

/// What a request is judged by.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Who asks.
    pub account: Arc<Account>,
    /// Who signs.
    pub issuer: Arc<Issuer>,
    /// What may be issued.
    pub profile: Arc<Profile>,
}

/// A revision as it is stored and travels: the changes as signed bytes, chained to the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revision {
    /// Number, from 1, without gaps.
    pub number: u64,
    /// Hash of the revision before; zeros before the first.
    pub previous: Digest,
    /// JSON array of [`Change`], the very bytes that were hashed.
    pub body: crate::bytes::Blob,
    /// SHA-256 over number, previous, time, node and body (`wire::trust`).
    pub hash: Digest,
    /// The control node that signed it.
    pub node: NodeId,
    /// Its Ed25519 signature over `hash` with a context.
    pub signature: crate::bytes::Blob,
    /// When.
    pub at: crate::time::Timestamp,
}
