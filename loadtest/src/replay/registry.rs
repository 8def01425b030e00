//! What a replay has in the registry, made as operators make it.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use domain::{
    id::TokenId,
    issuer::{Api, Profile},
    key::KeyType,
    lane::Class,
};
use runtime::context_file::{AccountEntry, ContextFile};
use tests::Root;
use wire::{
    admin::{AddAccount, GenerateKey, MakeCsr, Past, PutProfile, RegisterIssuer},
    client::{AdminClient, TlsFiles},
};

/// How long after issuance a repeated request gets the same certificate.
const JOIN_WITHIN: Duration = Duration::from_secs(30);
/// Why things are done, for the audit log.
pub const REASON: &str = "replay";

/// The first operator's way to the installation.
pub fn operator(context: &ContextFile) -> Result<AdminClient> {
    let operator = context
        .operators
        .first()
        .context("the context file names no operator")?;
    let files = TlsFiles {
        ca: &context.tls_ca_file,
        certificate: &operator.cert_file,
        key: &operator.key_file,
    };
    let url = context
        .admin_url
        .as_deref()
        .context("the context file has no `admin_url`")?;
    Ok(AdminClient::new(url, &files)?)
}

/// An account to be made: its issuer's number, the class of its jobs, and how long its clients wait, in seconds.
pub struct Ask {
    pub issuer: usize,
    pub class: Class,
    pub wait: u32,
}

/// Makes issuers, each with its key on a token, and accounts. Limits are the shipped ones.
pub async fn make(
    admin: &AdminClient,
    context: &ContextFile,
    issuers: &[(String, &str)],
    asks: &[Ask],
) -> Result<Vec<AccountEntry>> {
    let root = Root::new("Root of the replay")?;
    let demo: Profile = admin.profile(&"demo-p256".parse()?).await?;
    for class in Class::ALL {
        let put = PutProfile {
            profile: Box::new(Profile {
                id: profile(class).parse()?,
                version: 1,
                class,
                // Who asks again because his certificate was late shall get that one.
                join_within: JOIN_WITHIN,
                ..demo.clone()
            }),
            dry_run: false,
            reason: REASON.into(),
        };
        admin.put_profile(&put).await?;
    }
    for (name, token) in issuers {
        make_issuer(admin, &root, name, token.parse()?).await?;
    }
    let certificate = fs::read_to_string(&context.client_cert_file)?;
    let mut accounts = Vec::new();
    for ask in asks {
        let (name, profile) = (&issuers[ask.issuer].0, profile(ask.class));
        let request = AddAccount {
            id: format!("{name}-{}", ask.class.as_str()).parse()?,
            issuer: name.parse()?,
            profile: profile.parse()?,
            client_certificates: vec![certificate.clone()],
            issuance_quota: 10_000_000,
            requests_per_second: 2_000,
            jobs_in_flight: 1_000_000,
            reason: REASON.into(),
        };
        let made = admin.add_account(&request).await?;
        accounts.push(AccountEntry {
            name: made.account.id.to_string(),
            api: Api::Hvca,
            api_key: made.account.api_key,
            api_secret: made.api_secret,
            issuer: name.clone(),
            profile,
        });
    }
    Ok(accounts)
}

fn profile(class: Class) -> String {
    format!("replay-{}", class.as_str())
}

async fn make_issuer(admin: &AdminClient, root: &Root, name: &str, token: TokenId) -> Result<()> {
    let generate = GenerateKey {
        token: token.clone(),
        key: name.to_owned(),
        key_type: KeyType::P256,
        reason: REASON.into(),
    };
    let report = admin.generate_key(&generate).await?;
    ensure!(report.fit_for_real_ca, "{name}'s key is not on hardware");
    let request = MakeCsr {
        token: token.clone(),
        key: name.to_owned(),
        subject: format!("O=Replay,CN={name}"),
    };
    let request = admin.make_csr(&request).await?;
    let register = RegisterIssuer {
        id: name.parse()?,
        chain: root.chain(&request.csr)?,
        token,
        key: name.to_owned(),
        private_key: None,
        past: Past::None,
        public_url: None,
        crl_shards: 16,
        profile: None,
        dry_run: false,
        reason: REASON.into(),
    };
    admin.register_issuer(&register).await?;
    Ok(())
}
