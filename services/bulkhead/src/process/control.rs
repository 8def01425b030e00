//! Control: makes the installation at its first start, then serves operators and nodes.

use std::sync::Arc;

use domain::issuer::Role;
use runtime::{data_dir::DataDir, follow::FollowError, ports::Ports, tls::TlsFiles};
use serde::Serialize;
use store::Store;

use super::{node, until_ready, wait};
use crate::{
    cli::{Output, Serve},
    compose::{self, Context, Control, Founding, Host, Missing, Process, Urls, absolute},
    failure::{Failure, Outcome},
    output::fields,
};

/// What is said when control is ready.
#[derive(Debug, Serialize)]
struct Ready {
    context: std::path::PathBuf,
    admin_url: String,
    metrics_url: String,
    revision: u64,
}

pub(super) async fn start(
    output: Output,
    serve: &Serve,
    process: &Process,
    data: &DataDir,
    mut ports: Ports,
    metrics_url: String,
    demo: bool,
) -> Outcome {
    let config = &process.config;
    let place = &config.place;
    let admin = ports.bind("admin", place.admin_listen).map_err(Failure::failed)?;
    let admin_url = Host::of(&place.names, place.admin_listen.ip()).url("https", &admin)?;
    let mut keys = Vec::new();
    for token in &config.token {
        keys.push(compose::open_token(token, data, Missing::IsMade).await?);
    }
    let demo = match (demo, config.token.first()) {
        (true, None) => {
            return Err(Failure::usage(
                "--demo: the demo keys need a token; add [[token]] to the configuration",
            ));
        }
        (true, Some(token)) => Some(token.name()),
        (false, _) => None,
    };

    let store = wait(process, "store", || compose::open_store(config, data)).await;
    let context = believed(process, data, store).await?;
    let founding = Founding {
        root: node::identity(data)?.root_or_create().map_err(Failure::failed)?,
        nodes: vec![(
            Arc::new(
                node::identity(data)?
                    .node_key(&node::name(config)?)
                    .map_err(Failure::failed)?,
            ),
            Role::Control,
        )],
        keys,
        public_url: place.public_url.clone(),
        names: place.called(),
        sole: false,
    };
    let control = Arc::new(Control::open(&context, data, founding).await?);
    let urls = Urls {
        api: (!place.api_url.is_empty()).then(|| place.api_url.trim_end_matches('/').to_owned()),
        admin: admin_url.clone(),
        metrics: metrics_url.clone(),
    };
    let path = data.file("context.json");
    let written = control.context_file(urls, &path, demo).await?;
    written.write(&path).map_err(Failure::failed)?;

    let access = &control.access;
    let files = TlsFiles {
        certificate: access.server.certificate_file.clone(),
        key: access.server.key_file.clone(),
        client_ca: access.ca.ca_file(),
    };
    let tls = compose::enrolment_tls(process, files)?;
    context.follow();
    compose::operators(&context, &control, admin, &tls)?;
    until_ready(process).await;
    let ready = Ready {
        context: absolute(&path)?,
        admin_url,
        metrics_url,
        revision: context.follower.applied().load().revision(),
    };
    output.print(&ready, || {
        fields([
            ("Bulkhead control is ready", String::from("Ctrl-C stops it")),
            ("  operators' API", ready.admin_url.clone()),
            ("  metrics", ready.metrics_url.clone()),
            ("  context file", ready.context.display().to_string()),
            ("  registry", format!("revision {}", ready.revision)),
        ])
    })?;
    match &serve.ready_file {
        Some(file) => written.write(file).map_err(Failure::failed),
        None => Ok(()),
    }
}

/// The registry as it is believed under the root in this directory, which is made for an installation that does not exist yet.
async fn believed(process: &Process, data: &DataDir, store: Arc<dyn Store>) -> Outcome<Context> {
    let identity = node::identity(data)?;
    let head = wait(process, "store", || async {
        store.head().await.map_err(Failure::failed)
    })
    .await;
    let path = data.path().display();
    if head.revision > 0 && !identity.has_root() {
        return Err(Failure::failed(format_args!("{path}: this installation exists, and its root is not here")).next(
            "copy identity/root.pem, access/ca.pem and access/ca-key.pem from the data directory of the first control process",
        ));
    }
    let root = identity.root_or_create().map_err(Failure::failed)?;
    let context = Context::new(process, data, store, &root.public_key())?;
    let unbelievable = wait(process, "registry", || async {
        match context.follower.catch_up().await {
            Ok(_) => Ok(None),
            Err(FollowError::Store(error)) => Err(Failure::failed(error)),
            Err(error) => Ok(Some(error)),
        }
    });
    match unbelievable.await {
        None => Ok(context),
        Some(error) => Err(Failure::failed(format_args!(
            "the registry cannot be believed under the root in {path}: {error}"
        ))),
    }
}
