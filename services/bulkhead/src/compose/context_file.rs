//! The context file: where everything is and with which credentials. It is the only place where accounts' secrets are kept.

use std::path::Path;

use domain::{
    id::{AccountId, TokenId},
    issuer::Account,
    registry::Snapshot,
};
use registry::demo;
use runtime::context_file::{AccountEntry, ContextFile, OperatorEntry};

use super::{absolute, control::Control};
use crate::failure::{Failure, Outcome};

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Urls {
    /// Base of the certificate API, without version; `None` if it is not known here.
    pub api: Option<String>,
    /// The operators' API.
    pub admin: String,
    /// Base of the metrics.
    pub metrics: String,
}

impl Control {
    /// What the context file says from now on. `path` is where it was written by the last start: its secrets are kept if they still
    /// fit; demo accounts whose secret is lost get a new one.
    ///
    /// With `demo` the demo hierarchy is made on that token, unless the registry has issuers already.
    pub async fn context_file(&self, urls: Urls, path: &Path, demo: Option<&TokenId>) -> Outcome<ContextFile> {
        let access = &self.access;
        let snapshot = self.registry.current().await.map_err(Failure::failed)?;
        let operators = access.operators.iter().filter_map(|(id, issued)| {
            let operator = snapshot.operators.get(id)?;
            Some((id, operator.role, issued))
        });
        let operators = operators.map(|(id, role, issued)| {
            Ok(OperatorEntry {
                name: id.to_string(),
                role,
                cert_file: absolute(&issued.certificate_file)?,
                key_file: absolute(&issued.key_file)?,
            })
        });
        Ok(ContextFile {
            url: urls.api.map(|base| format!("{base}/v2")),
            admin_url: Some(urls.admin),
            metrics_url: Some(format!("{}/metrics", urls.metrics)),
            tls_ca_file: absolute(&access.ca.ca_file())?,
            client_cert_file: absolute(&access.client.certificate_file)?,
            client_key_file: absolute(&access.client.key_file)?,
            operators: operators.collect::<Outcome<_>>()?,
            accounts: self.accounts(path, demo).await?,
            ..ContextFile::default()
        })
    }

    /// Accounts whose secrets are known: the demo accounts first, then those that operators saved.
    async fn accounts(&self, path: &Path, demo: Option<&TokenId>) -> Outcome<Vec<AccountEntry>> {
        // A file that is missing or damaged only means that its secrets are lost.
        let saved = ContextFile::load(path)
            .map(|context| context.accounts)
            .unwrap_or_default();
        let mut entries = match demo {
            Some(token) => self.demo_accounts(token, &saved).await?,
            None => Vec::new(),
        };
        let snapshot = self.registry.current().await.map_err(Failure::failed)?;
        let others = saved.into_iter().filter(|saved| {
            let new = entries.iter().all(|entry| entry.name != saved.name);
            new && saved.name.parse().is_ok_and(|id| fits(saved, &id, &snapshot))
        });
        let others: Vec<_> = others.collect();
        entries.extend(others);
        Ok(entries)
    }

    async fn demo_accounts(&self, token: &TokenId, saved: &[AccountEntry]) -> Outcome<Vec<AccountEntry>> {
        let client = self.access.client.fingerprint;
        let made = self
            .registry
            .make_demo(token, client, &self.limits)
            .await
            .map_err(Failure::failed)?;
        let mut entries: Vec<_> = made
            .iter()
            .map(|(account, credential)| entry(account, &credential.api_secret))
            .collect();
        let snapshot = self.registry.current().await.map_err(Failure::failed)?;
        for id in demo::accounts().filter(|_| made.is_empty()) {
            let known = saved.iter().find(|entry| fits(entry, &id, &snapshot));
            let fresh = self
                .registry
                .refresh_demo_account(&id, client, known.is_none())
                .await
                .map_err(Failure::failed)?;
            let account = self
                .registry
                .current()
                .await
                .map_err(Failure::failed)?
                .accounts
                .get(&id)
                .cloned();
            match (account, fresh, known) {
                (Some(account), Some(fresh), _) => entries.push(entry(&account, &fresh.api_secret)),
                (Some(_), None, Some(known)) => entries.push(known.clone()),
                _ => {}
            }
        }
        Ok(entries)
    }
}

fn entry(account: &Account, secret: &str) -> AccountEntry {
    AccountEntry {
        name: account.id.to_string(),
        api: account.api,
        api_key: account.api_key.clone(),
        api_secret: secret.to_owned(),
        issuer: account.issuer.to_string(),
        profile: account.profile.to_string(),
    }
}

/// Whether a saved credential is the one that the registry knows.
fn fits(saved: &AccountEntry, id: &AccountId, snapshot: &Snapshot) -> bool {
    let account = snapshot.accounts.get(id).filter(|_| saved.name == id.as_str());
    account.is_some_and(|account| {
        account.api_key == saved.api_key && account.api_secret == pki::sha256(saved.api_secret.as_bytes())
    })
}
