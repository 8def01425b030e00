//! Which engine is behind each trait: the only place that names them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use broker::{Broker, OwnLanes, amqp, embedded};
use domain::{
    id::TokenId,
    lane::{Lane, own_lanes},
};
use keys::{Keys, pkcs11, soft};
use runtime::{
    clock::SystemClock,
    config::{self, BrokerEngine, Config, OWN_TOKEN, Pkcs11Token, SoftToken, StoreEngine, Token},
    data_dir::DataDir,
};
use store::{Store, postgres, sqlite};

use super::{Context, blocking};
use crate::failure::{Failure, Outcome};

/// Opens the ledger.
pub async fn open_store(config: &Config, data: &DataDir) -> Outcome<Arc<dyn Store>> {
    let settings = &config.store;
    match settings.engine {
        StoreEngine::Sqlite => {
            let directory = if settings.path.as_os_str().is_empty() {
                data.file("ledger")
            } else {
                settings.path.clone()
            };
            let options = sqlite::Options {
                commit_gap: settings.commit_gap,
                batch_rows: settings.commit_rows,
                interactive_calls: settings.queue,
                readers: settings.readers,
                checkpoint_pages: settings.wal_autocheckpoint,
                ..sqlite::Options::new(Arc::new(SystemClock))
            };
            let store = blocking(move || sqlite::Sqlite::open(&directory, options)).await?;
            Ok(Arc::new(store.map_err(Failure::failed)?))
        }
        StoreEngine::Postgres => {
            let store = postgres::Postgres::open(postgres_options(config)).await;
            Ok(Arc::new(store.map_err(Failure::failed)?))
        }
    }
}

fn postgres_options(config: &Config) -> postgres::Options {
    let settings = &config.store.postgres;
    postgres::Options {
        port: settings.port,
        password_file: given(&settings.password_file),
        tls: given(&settings.ca_file).map(|ca_file| postgres::Tls {
            ca_file,
            client: given(&settings.certificate_file).zip(given(&settings.key_file)),
        }),
        commit_gap: settings.commit_gap,
        batch_rows: config.store.commit_rows.min(1_000),
        writers: settings.writers,
        readers: settings.readers,
        interactive_calls: config.store.queue,
        patience: settings.patience,
        statement_limit: settings.statement_limit,
        ..postgres::Options::new(&settings.host, &settings.user, &settings.database)
    }
}

fn given(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

/// Opens the transport between front ends and signers. A server that is away is waited for in the background.
pub fn open_broker(context: &Context) -> Outcome<Arc<dyn Broker>> {
    let process = &context.process;
    let settings = &process.config.broker;
    match settings.engine {
        BrokerEngine::Embedded => Ok(Arc::new(embedded::Embedded::new(embedded::Limits {
            lane_envelopes: settings.lane_envelopes,
            ..embedded::Limits::default()
        }))),
        BrokerEngine::Amqp => {
            let own = OwnLanes::default();
            let amqp = amqp::Amqp::connect(amqp_options(settings)?, own.clone());
            process
                .shutdown
                .spawn(settle_own_lanes(context.clone(), own, settings.amqp.own_lanes));
            Ok(Arc::new(amqp.map_err(|error| {
                Failure::usage(format_args!("broker.amqp: {error}"))
            })?))
        }
    }
}

fn amqp_options(broker: &config::Broker) -> Outcome<amqp::Options> {
    let settings = &broker.amqp;
    let identity = given(&settings.certificate_file).zip(given(&settings.key_file));
    let login = if identity.is_some() {
        amqp::Login::External
    } else {
        amqp::Login::Password {
            user: settings.user.clone(),
            file: settings.password_file.clone(),
        }
    };
    let lane_envelopes = u32::try_from(broker.lane_envelopes)
        .map_err(|_| Failure::usage("broker.lane_envelopes: is more than any queue holds; write for example 2000"))?;
    Ok(amqp::Options {
        addresses: settings.addresses.clone(),
        vhost: settings.virtual_host.clone(),
        login,
        tls: given(&settings.ca_file).map(|ca_file| amqp::Tls { ca_file, identity }),
        heartbeat: settings.heartbeat,
        connect_timeout: settings.connect_timeout,
        call_timeout: broker.publish_timeout,
        lane_envelopes,
        prefetch_envelopes: settings.prefetch_envelopes,
        ..amqp::Options::default()
    })
}

/// Settles which lanes have queues of their own whenever the registry changes: of the lanes that an account may issue in, the most
/// urgent. Every process comes to the same by itself.
async fn settle_own_lanes(context: Context, own: OwnLanes, limit: usize) {
    let mut told = context.follower.subscribe();
    loop {
        told.borrow_and_update();
        let snapshot = context.follower.applied().load().snapshot.clone();
        let lanes: BTreeSet<Lane> = snapshot
            .accounts
            .keys()
            .filter_map(|account| snapshot.terms(account))
            .map(|terms| Lane {
                issuer: terms.issuer.id.clone(),
                class: terms.profile.class,
            })
            .collect();
        own.settle(own_lanes(lanes, limit));
        tokio::select! {
            () = context.process.shutdown.soft().cancelled() => return,
            changed = told.changed() => if changed.is_err() { return },
        }
    }
}

/// What becomes of a token that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Control makes it.
    IsMade,
    /// A signer waits for it.
    IsWaitedFor,
}

/// Opens a token that the configuration names. What is wrong with hardware, its calls say: other tokens do not wait for it.
pub async fn open_token(token: &Token, data: &DataDir, missing: Missing) -> Outcome<Arc<dyn Keys>> {
    match token.clone() {
        Token::Soft(SoftToken {
            name,
            directory,
            passphrase_file,
        }) => {
            if missing == Missing::IsWaitedFor && !passphrase_file.exists() {
                return Err(Failure::failed(format_args!(
                    "token {name}: {} is not there; control makes it, or it is copied from there",
                    passphrase_file.display()
                )));
            }
            open_soft(name, directory, passphrase_file).await
        }
        Token::Pkcs11(Pkcs11Token {
            name,
            module,
            label,
            serial,
            pin_file,
            sessions,
            operation_limit,
            slow_limit,
        }) => {
            let options = pkcs11::Options {
                module,
                label,
                serial,
                pin_file,
                refused_file: refused_file(data.path(), &name),
                sessions,
                operation_limit,
                slow_limit,
            };
            // This very program, even if another version lies at its place by now.
            let program = pkcs11::Program {
                path: "/proc/self/exe".into(),
                arguments: vec!["token-worker".into(), name.to_string().into()],
            };
            Ok(Arc::new(pkcs11::Pkcs11Token::new(name, options, program)))
        }
    }
}

/// Where it is written that a token has refused a login.
pub fn refused_file(data: &Path, token: &TokenId) -> PathBuf {
    data.join("tokens").join(format!("{token}.pin-refused"))
}

/// The token of a process that is everything, made at its first start.
pub async fn own_token(data: &DataDir) -> Outcome<Arc<dyn Keys>> {
    let name: TokenId = OWN_TOKEN.parse().map_err(Failure::failed)?;
    let directory = data.directory("keys").map_err(Failure::failed)?;
    open_soft(name, directory.join(OWN_TOKEN), directory.join("passphrase")).await
}

async fn open_soft(name: TokenId, directory: PathBuf, passphrase: PathBuf) -> Outcome<Arc<dyn Keys>> {
    let keys = blocking(move || {
        soft::ensure_passphrase_file(&passphrase, &name)?;
        soft::SoftKeys::open_or_create(&directory, &passphrase, name)
    });
    Ok(Arc::new(keys.await?.map_err(Failure::failed)?))
}
