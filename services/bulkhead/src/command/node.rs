//! `bulkhead node`.

use std::{io::Read, path::Path};

use domain::{id::NodeId, registry::Snapshot, time::Timestamp};
use runtime::{config::Config, data_dir::DataDir, node_files::fingerprint_of};
use serde::Serialize;
use wire::{
    client::{self, AdminClient, ClientError},
    enrol::{Code, Enrol, Enrolled, Invite},
    signed::NodeKey,
    trust::Directory,
};
use zeroize::Zeroizing;

use super::{
    render,
    session::{Session, failure},
};
use crate::{
    cli::{Common, NodeCommand, NodeEnrol, NodeInvite},
    failure::{Failure, Outcome},
    output::{fields, time},
    process::node,
};

/// The longest code that is read, in bytes.
const LONGEST_CODE: u64 = 4096;

/// Does what was typed.
pub async fn run(common: &Common, command: NodeCommand) -> Outcome {
    match command {
        NodeCommand::List => {
            let nodes = Session::open(common)?.ask(AdminClient::nodes).await?;
            common.output.print(&nodes, || render::nodes(&nodes))
        }
        NodeCommand::Invite(invite) => self::invite(common, invite).await,
        NodeCommand::Enrol(enrol) => self::enrol(common, enrol).await,
    }
}

async fn invite(common: &Common, invite: NodeInvite) -> Outcome {
    let request = Invite {
        node: invite.id,
        role: invite.role.into(),
        names: invite.names,
        seconds: invite.valid.as_secs(),
        reason: invite.reason,
    };
    let invited = Session::open(common)?.ask(|api| api.invite_node(&request)).await?;
    // The code alone, so that it can go into a file as it is.
    common.output.print(&invited, || format!("{}\n", invited.code))?;
    eprintln!(
        "node {} may enrol with this code once, until {}",
        invited.node,
        time(invited.not_after)
    );
    Ok(())
}

/// What is printed.
#[derive(Serialize)]
struct Printed {
    node: NodeId,
    not_after: Timestamp,
    data: std::path::PathBuf,
}

async fn enrol(common: &Common, enrol: NodeEnrol) -> Outcome {
    let config = Config::load(&enrol.config).map_err(Failure::usage)?;
    let role = node::role(&config)?;
    let name = node::name(&config)?;
    let code = read_code(enrol.code_file.as_deref())?;
    let data = DataDir::open(&config.place.data_dir).map_err(Failure::failed)?;
    let (identity, files) = (node::identity(&data)?, node::files(&data)?);
    // The key is made here and stays here. Asking again after a lost answer asks for the same one.
    let key = identity.node_key(&name).map_err(Failure::failed)?;
    let pending = files.begin(&name);
    let request = Enrol::new(&key, role, code.secret.clone(), pending.csr.clone());
    let enrolled = ask(&config, &code, &request).await?;
    verify(&enrolled, &code, &key)?;
    if identity.root_public_key().is_ok_and(|root| root != *enrolled.root) {
        return Err(Failure::refused(format_args!(
            "{}: belongs to another installation",
            data.path().display()
        ))
        .next("give this node a data directory of its own (place.data_dir)"));
    }
    files.keep_ca(&enrolled.access_ca).map_err(Failure::failed)?;
    files.keep(&enrolled.certificate, &pending).map_err(Failure::failed)?;
    identity.keep_root_public_key(&enrolled.root).map_err(Failure::failed)?;
    let printed = Printed {
        node: name,
        not_after: enrolled.node.not_after,
        data: data.path().to_owned(),
    };
    common.output.print(&printed, || {
        fields([
            ("enrolled", printed.node.to_string()),
            ("until", time(printed.not_after)),
            ("keys in", printed.data.display().to_string()),
        ])
    })
}

/// Asks the control processes in turn; the first that answers counts.
async fn ask(config: &Config, code: &Code, request: &Enrol) -> Outcome<Enrolled> {
    let mut last = None;
    for url in &config.node.control_urls {
        match client::enrol(url, code.access_ca, request).await {
            Ok(enrolled) => return Ok(enrolled),
            Err(error @ ClientError::Unreachable { .. }) => last = Some(Failure::failed(error)),
            Err(error) => return Err(failure(error)),
        }
    }
    let last = last.unwrap_or_else(|| Failure::usage("node.control_urls: is empty; write where control is"));
    Err(last.next("is `bulkhead control` running there, and is the code its own?"))
}

/// What came must be about this node, and under the authorities that it names.
fn verify(enrolled: &Enrolled, code: &Code, key: &NodeKey) -> Outcome {
    let Enrolled {
        node,
        root,
        access_ca,
        certificate: _,
    } = enrolled;
    let mut snapshot = Snapshot::default();
    snapshot.nodes.insert(node.id.clone(), node.clone().into());
    let endorsed = Directory::new(root, &snapshot).is_ok_and(|directory| directory.refused().is_empty());
    let ours = node.id == *key.node() && *node.public_key == *key.public_key();
    if endorsed && ours && fingerprint_of(access_ca) == Some(code.access_ca) {
        Ok(())
    } else {
        Err(Failure::failed("control's answer does not verify; nothing was kept"))
    }
}

/// The code, from a file or from what is typed.
fn read_code(file: Option<&Path>) -> Outcome<Code> {
    let mut text = Zeroizing::new(String::new());
    let (name, read) = match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            let read = std::fs::File::open(file).and_then(|open| open.take(LONGEST_CODE).read_to_string(&mut text));
            (file.display().to_string(), read)
        }
        None => (
            "standard input".into(),
            std::io::stdin().take(LONGEST_CODE).read_to_string(&mut text),
        ),
    };
    read.map_err(|error| Failure::usage(format_args!("{name}: {error}")))?;
    text.parse()
        .map_err(|error| Failure::usage(format_args!("{name}: {error}")))
}
