//! `bulkhead issuer`.

use std::{os::unix::fs::MetadataExt, path::Path};

use domain::{bytes::Blob, id::IssuerId};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use wire::{
    admin::{Because, GenerateKey, MakeCsr, Past, PrivateKey, RegisterIssuer},
    client::AdminClient,
    operate::{BindIssuer, MarkDestroyed},
};

use super::{files, profile, render, session::Session};
use crate::{
    cli::{
        Common, IssuerActivate, IssuerBind, IssuerCommand, IssuerCsr, IssuerImport, IssuerKeygen, IssuerMarkDestroyed,
        IssuerSwitch, Legacy, Placement,
    },
    failure::{Failure, Outcome},
    progress::during,
};

pub(super) async fn run(common: &Common, command: IssuerCommand) -> Outcome {
    match command {
        IssuerCommand::List => {
            let issuers = Session::open(common)?.ask(AdminClient::issuers).await?;
            common.output.print(&issuers, || render::issuers(&issuers))
        }
        IssuerCommand::Show { issuer } => {
            let issuer = Session::open(common)?.ask(|api| api.issuer(&issuer)).await?;
            common.output.print(&issuer, || render::issuer(&issuer))
        }
        IssuerCommand::Import(import) => import_issuer(common, import).await,
        IssuerCommand::Keygen(keygen) => generate_key(common, keygen).await,
        IssuerCommand::Csr(csr) => make_csr(common, csr).await,
        IssuerCommand::Activate(activate) => activate_issuer(common, activate).await,
        IssuerCommand::Bind(bind) => bind_issuer(common, bind).await,
        IssuerCommand::Disable(switch) => turn(common, switch, false).await,
        IssuerCommand::Enable(switch) => turn(common, switch, true).await,
        IssuerCommand::MarkDestroyed(mark) => mark_destroyed(common, mark).await,
    }
}

fn key_name(placement: &Placement, issuer: &IssuerId) -> String {
    placement.key.clone().unwrap_or_else(|| issuer.to_string())
}

async fn import_issuer(common: &Common, import: IssuerImport) -> Outcome {
    let private_key = import.key_file.as_deref().map(read_private_key).transpose()?;
    let request = RegisterIssuer {
        key: key_name(&import.placement, &import.issuer),
        id: import.issuer,
        chain: files::read_text(&import.chain)?,
        token: import.placement.token,
        private_key,
        past: read_past(&import.legacy)?,
        public_url: import.public_url,
        crl_shards: import.crl_shards,
        profile: import.profile.as_deref().map(profile::read).transpose()?.map(Box::new),
        dry_run: import.dry_run,
        reason: import.reason,
    };
    register(common, &request).await
}

async fn activate_issuer(common: &Common, activate: IssuerActivate) -> Outcome {
    let request = RegisterIssuer {
        key: key_name(&activate.placement, &activate.issuer),
        id: activate.issuer,
        chain: files::read_text(&activate.chain)?,
        token: activate.placement.token,
        private_key: None,
        // Its key was made here, for it: it cannot have issued anything elsewhere.
        past: Past::None,
        public_url: activate.public_url,
        crl_shards: activate.crl_shards,
        profile: activate
            .profile
            .as_deref()
            .map(profile::read)
            .transpose()?
            .map(Box::new),
        dry_run: activate.dry_run,
        reason: activate.reason,
    };
    register(common, &request).await
}

async fn register(common: &Common, request: &RegisterIssuer) -> Outcome {
    let done = format!("issuer {} is registered", request.id);
    let session = Session::open(common)?;
    let changed = during(
        "checking and registering the issuer",
        session.ask(|api| api.register_issuer(request)),
    )
    .await?;
    common.output.print(&changed, || render::changed(&changed, &done))
}

async fn generate_key(common: &Common, keygen: IssuerKeygen) -> Outcome {
    let request = GenerateKey {
        key: key_name(&keygen.placement, &keygen.issuer),
        token: keygen.placement.token,
        key_type: keygen.key_type,
        reason: keygen.reason,
    };
    let session = Session::open(common)?;
    let report = during("making the key", session.ask(|api| api.generate_key(&request))).await?;
    if let Some(path) = &keygen.report {
        let mut json = serde_json::to_string_pretty(&report).map_err(Failure::failed)?;
        json.push('\n');
        files::write(path, &json)?;
    }
    common.output.print(&report, || render::key_report(&report))
}

async fn make_csr(common: &Common, csr: IssuerCsr) -> Outcome {
    let request = MakeCsr {
        key: key_name(&csr.placement, &csr.issuer),
        token: csr.placement.token,
        subject: csr.subject,
    };
    let made = Session::open(common)?.ask(|api| api.make_csr(&request)).await?;
    match &csr.out {
        None => common.output.print(&made, || made.csr.clone()),
        Some(path) => {
            files::write(path, &made.csr)?;
            common
                .output
                .print(&made, || format!("request written to {}\n", path.display()))
        }
    }
}

async fn turn(common: &Common, switch: IssuerSwitch, enabled: bool) -> Outcome {
    let session = Session::open(common)?;
    let because = Because { reason: switch.reason };
    let (changed, done) = if enabled {
        (
            session.ask(|api| api.enable_issuer(&switch.issuer, &because)).await?,
            "enabled",
        )
    } else {
        (
            session.ask(|api| api.disable_issuer(&switch.issuer, &because)).await?,
            "disabled",
        )
    };
    let done = format!("issuer {} is {done}", switch.issuer);
    common.output.print(&changed, || render::changed(&changed, &done))
}

async fn bind_issuer(common: &Common, bind: IssuerBind) -> Outcome {
    let request = BindIssuer {
        key: key_name(&bind.placement, &bind.issuer),
        token: bind.placement.token,
        dry_run: bind.dry_run,
        reason: bind.reason,
    };
    let session = Session::open(common)?;
    let changed = session.ask(|api| api.bind_issuer(&bind.issuer, &request)).await?;
    let done = format!("issuer {} is bound to token {} as well", bind.issuer, request.token);
    common.output.print(&changed, || render::changed(&changed, &done))
}

async fn mark_destroyed(common: &Common, mark: IssuerMarkDestroyed) -> Outcome {
    let request = MarkDestroyed {
        dry_run: mark.dry_run,
        expect_count: mark.expect_count,
        reason: mark.reason,
    };
    let session = Session::open(common)?;
    let marked = session
        .ask(|api| api.mark_issuer_destroyed(&mark.issuer, &request))
        .await?;
    common
        .output
        .print(&marked, || render::marked_destroyed(&marked, &mark.issuer))
}

/// An unencrypted PKCS#8 key in a file that only its owner can read.
fn read_private_key(path: &Path) -> Outcome<PrivateKey> {
    let cannot = |error: std::io::Error| Failure::usage(format_args!("cannot read {}: {error}", path.display()));
    let mode = std::fs::metadata(path).map_err(cannot)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::usage(format_args!(
            "{} can be read by others (mode {mode:04o})",
            path.display()
        ))
        .next(format!("chmod 600 {}", path.display())));
    }
    let content = files::read(path)?;
    let pkcs8 = if content.trim_ascii_start().starts_with(b"-----BEGIN") {
        PrivatePkcs8KeyDer::from_pem_slice(&content)
            .map(|key| key.secret_pkcs8_der().to_vec())
            .map_err(|_| {
                let name = path.display();
                Failure::usage(format_args!("{name} holds no unencrypted PKCS#8 private key")).next(format!(
                    "openssl pkcs8 -topk8 -nocrypt -in {name} -out key.pem; chmod 600 key.pem"
                ))
            })?
    } else {
        content
    };
    Ok(PrivateKey(Blob(pkcs8)))
}

fn read_past(legacy: &Legacy) -> Outcome<Past> {
    let last_crl = |path: &std::path::PathBuf| files::read_der(path, "X509 CRL").map(Blob);
    let last_crl = legacy.last_crl.as_ref().map(last_crl).transpose()?;
    match (&legacy.history, legacy.no_history) {
        (Some(directory), _) => Ok(Past::Known {
            certificates: read_history(directory)?,
            last_crl,
        }),
        (None, true) if last_crl.is_none() => Ok(Past::None),
        (None, true) => Ok(Past::Known {
            certificates: Vec::new(),
            last_crl,
        }),
        (None, false) if last_crl.is_none() => Ok(Past::Unknown),
        (None, false) => Err(
            Failure::usage("--last-crl alone does not tell which certificates there are")
                .next("add --history DIR, or --no-history if it has never issued one"),
        ),
    }
}

fn read_history(directory: &Path) -> Outcome<Vec<Blob>> {
    let cannot = |error: std::io::Error| Failure::usage(format_args!("cannot read {}: {error}", directory.display()));
    let mut paths = std::fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(cannot)?;
    paths.retain(|path| path.is_file());
    paths.sort();
    if paths.is_empty() {
        return Err(
            Failure::usage(format_args!("{} holds no certificate", directory.display()))
                .next("give --no-history if the issuer has never issued one"),
        );
    }
    paths
        .iter()
        .map(|path| files::read_der(path, "CERTIFICATE").map(Blob))
        .collect()
}
