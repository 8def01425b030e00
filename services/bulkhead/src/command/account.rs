//! `bulkhead account`.

use runtime::context_file::AccountEntry;
use serde::Serialize;
use wire::{
    admin::{AddAccount, NewAccount},
    client::AdminClient,
};

use super::{
    files, render,
    session::{Place, Session},
};
use crate::{
    cli::{AccountAdd, AccountCommand, Common},
    failure::{Failure, Outcome},
    output::fields,
};

pub(super) async fn run(common: &Common, command: AccountCommand) -> Outcome {
    match command {
        AccountCommand::List => {
            let accounts = Session::open(common)?.ask(AdminClient::accounts).await?;
            common.output.print(&accounts, || render::accounts(&accounts))
        }
        AccountCommand::Add(add) => add_account(common, add).await,
    }
}

/// What is printed: with the secret, this once.
#[derive(Serialize)]
struct Added<'a> {
    #[serde(flatten)]
    account: &'a NewAccount,
    saved_in: Option<String>,
}

async fn add_account(common: &Common, add: AccountAdd) -> Outcome {
    let place = Place::find(common)?;
    let own = [place.context.client_cert_file.clone()];
    let certificates = if add.client_cert.is_empty() {
        &own[..]
    } else {
        &add.client_cert
    };
    let request = AddAccount {
        id: add.account,
        issuer: add.issuer,
        profile: add.profile,
        client_certificates: certificates
            .iter()
            .map(|path| files::read_text(path))
            .collect::<Outcome<_>>()?,
        issuance_quota: add.quota,
        requests_per_second: add.requests_per_second,
        jobs_in_flight: add.jobs_in_flight,
        reason: add.reason,
    };
    let added = Session::at(&place, common)?
        .ask(|api| api.add_account(&request))
        .await?;
    let saved_in = if add.save { save(place, &added) } else { None };
    let document = Added {
        account: &added,
        saved_in,
    };
    common.output.print(&document, || {
        fields([
            ("account", added.account.id.to_string()),
            ("issuer", added.account.issuer.to_string()),
            ("profile", added.account.profile.to_string()),
            ("api key", added.account.api_key.clone()),
            ("api secret", format!("{} (shown this once)", added.api_secret)),
            ("saved in", document.saved_in.clone().unwrap_or_default()),
            ("revision", added.revision.to_string()),
        ])
    })
}

/// Enters the credentials into the context file. The account exists already: if this fails, the secret must still be shown.
fn save(mut place: Place, added: &NewAccount) -> Option<String> {
    let account = &added.account;
    place.context.accounts.retain(|entry| entry.name != account.id.as_str());
    place.context.accounts.push(AccountEntry {
        name: account.id.to_string(),
        api: account.api,
        api_key: account.api_key.clone(),
        api_secret: added.api_secret.clone(),
        issuer: account.issuer.to_string(),
        profile: account.profile.to_string(),
    });
    match place.context.write(&place.path) {
        Ok(()) => Some(place.path.display().to_string()),
        Err(error) => {
            eprintln!("{}", Failure::failed(error).next("keep the secret below yourself"));
            None
        }
    }
}
