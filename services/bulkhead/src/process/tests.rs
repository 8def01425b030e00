//! Control over real TLS, and nodes that enrol at it with the commands that operators use.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use domain::{bytes::Digest, issuer::Role};
use runtime::{config::Config, context_file::ContextFile, data_dir::DataDir, ports::Ports, shutdown::Shutdown};
use tempfile::TempDir;
use wire::{
    client::{AdminClient, TlsFiles},
    enrol::{Code, Invite, NodeAnswer, NodeRequest},
};

use super::{control, node};
use crate::{
    cli::{Common, NodeCommand, NodeEnrol, Output, Serve},
    compose::{Process, Remote},
    failure::{Failure, Outcome},
};

/// Control on a ledger of its own: enough for everything that needs no second process on the same ledger.
struct Bench {
    place: TempDir,
    process: Process,
    context: ContextFile,
    _data: DataDir,
}

impl Bench {
    async fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.node.role = runtime::config::NodeRole::Control;
        config.node.id = "control-1".into();
        config.place.data_dir = place.path().join("control");
        for listen in [&mut config.place.admin_listen, &mut config.place.metrics_listen] {
            *listen = "127.0.0.1:0".parse().unwrap();
        }
        let data = DataDir::open(&config.place.data_dir).unwrap();
        let process = Process::new(config, &Shutdown::new(Duration::from_secs(5)));
        let serve = Serve {
            config: "unused".into(),
            ready_file: Some(place.path().join("ready.json")),
        };
        let ports = Ports::open(data.path()).unwrap();
        let metrics = "http://127.0.0.1:1".to_owned();
        control::start(Output::Json, &serve, &process, &data, ports, metrics, false)
            .await
            .unwrap();
        let context = ContextFile::load(&place.path().join("ready.json")).unwrap();
        Self {
            place,
            process,
            context,
            _data: data,
        }
    }

    fn operator(&self, name: &str) -> AdminClient {
        let operator = self
            .context
            .operators
            .iter()
            .find(|operator| operator.name == name)
            .unwrap();
        let files = TlsFiles {
            ca: &self.context.tls_ca_file,
            certificate: &operator.cert_file,
            key: &operator.key_file,
        };
        AdminClient::new(self.context.admin_url.as_ref().unwrap(), &files).unwrap()
    }

    async fn code(&self, node: &str, role: Role) -> Code {
        let invite = Invite {
            node: node.parse().unwrap(),
            role,
            names: Vec::new(),
            seconds: 600,
            reason: "test".into(),
        };
        let invited = self.operator("alice").invite_node(&invite).await.unwrap();
        invited.code.parse().unwrap()
    }

    /// The configuration of a node, in a directory of its own.
    fn configured(&self, node: &str, role: &str) -> (std::path::PathBuf, Config) {
        let token = "[[token]]\nname = \"soft\"\nkind = \"soft\"\ndirectory = \"k\"\npassphrase_file = \"p\"\n";
        let text = format!(
            "[node]\nrole = \"{role}\"\nid = \"{node}\"\ncontrol_urls = [{dead:?}, {url:?}]\n[place]\ndata_dir = {data:?}\n\
             [store]\nengine = \"postgres\"\n[broker]\nengine = \"amqp\"\n[broker.amqp]\npassword_file = \"p\"\n{token}",
            dead = "https://127.0.0.1:1",
            url = self.context.admin_url.as_ref().unwrap(),
            data = self.place.path().join(node),
            token = if role == "signer" { token } else { "" },
        );
        let path = self.place.path().join(format!("{node}.toml"));
        fs::write(&path, &text).unwrap();
        (path.clone(), Config::parse(&path, &text).unwrap())
    }

    /// `bulkhead node enrol` with this code.
    async fn enrol(&self, config: &Path, code: &Code) -> Outcome {
        let file = self.place.path().join("code");
        fs::write(&file, code.text().as_bytes()).unwrap();
        let common = Common {
            output: Output::Json,
            context: None,
            operator: None,
        };
        let enrol = NodeEnrol {
            config: config.to_owned(),
            code_file: Some(file),
        };
        crate::command::node::run(&common, NodeCommand::Enrol(enrol)).await
    }
}

fn refused(outcome: Outcome, said: &str) {
    let failure = outcome.unwrap_err();
    assert!(failure.to_string().contains(said), "{said:?} is not in {failure}");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_enrols_with_its_code_asks_control_and_renews_itself() {
    let bench = Bench::start().await;
    let (path, config) = bench.configured("fe-1", "frontend");
    let data = config.place.data_dir.clone();
    let code = bench.code("fe-1", Role::Frontend).await;

    // Another authority than the code's: nothing is even asked.
    let elsewhere = Code {
        access_ca: Digest([1; 32]),
        ..code.clone()
    };
    refused(
        bench.enrol(&path, &elsewhere).await,
        "access CA is not the one of the code",
    );
    refused(
        bench.enrol(&path, &Code::generate(code.access_ca)).await,
        "none that is open",
    );
    assert!(!data.join("identity/root.pub").exists());

    bench.enrol(&path, &code).await.unwrap();
    let private = [data.join("identity/node-fe-1.pem"), data.join("access/node.pem")];
    assert_eq!(private.each_ref().map(|path| mode(path)), [0o600; 2]);
    let pinned = bench.place.path().join("control/identity/root.pub");
    assert_eq!(
        fs::read(data.join("identity/root.pub")).unwrap(),
        fs::read(pinned).unwrap()
    );
    refused(bench.enrol(&path, &code).await, "was used");

    let held = DataDir::open(&data).unwrap();
    let (files, name) = (node::files(&held).unwrap(), node::name(&config).unwrap());
    let key = Arc::new(node::identity(&held).unwrap().node_key(&name).unwrap());
    let remote = Remote::new(&config, &files, &key, bench.process.clock.clone());
    let spki = Digest([7; 32]);
    assert_eq!(
        remote.ask(NodeRequest::BlockKey { spki }).await.unwrap(),
        NodeAnswer::Done
    );
    let pending = files.begin(&name);
    let csr = pending.csr.clone();
    let NodeAnswer::Renewed { certificate } = remote.ask(NodeRequest::Renew { csr }).await.unwrap() else {
        panic!("not renewed")
    };
    files.keep(&certificate, &pending).unwrap();
    remote.ask(NodeRequest::BlockKey { spki }).await.unwrap();

    // What a node shows makes no operator of it.
    let certificate = files.certificate_and_key();
    let as_node = TlsFiles {
        ca: &bench.context.tls_ca_file,
        certificate: &certificate,
        key: &certificate,
    };
    let intruder = AdminClient::new(bench.context.admin_url.as_ref().unwrap(), &as_node).unwrap();
    assert_eq!(intruder.nodes().await.unwrap_err().status(), Some(403));
    let nodes = bench.operator("bob").nodes().await.unwrap();
    let names: Vec<_> = nodes.iter().map(|node| (node.id.as_str(), node.role)).collect();
    assert_eq!(names, [("control-1", Role::Control), ("fe-1", Role::Frontend)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_is_for_one_name_and_one_role_and_a_directory_for_one_installation() {
    let bench = Bench::start().await;
    let code = bench.code("signer-1", Role::Signer).await;
    let (as_frontend, _) = bench.configured("signer-1", "frontend");
    refused(bench.enrol(&as_frontend, &code).await, "another role");
    let (other, _) = bench.configured("signer-2", "signer");
    refused(bench.enrol(&other, &code).await, "none that is open for node signer-2");
    let (path, config) = bench.configured("signer-1", "signer");
    bench.enrol(&path, &code).await.unwrap();

    let elsewhere = Bench::start().await;
    let code = elsewhere.code("signer-1", Role::Signer).await;
    let text = fs::read_to_string(&path).unwrap();
    let ours = bench.context.admin_url.as_ref().unwrap();
    let moved = text.replace(ours, elsewhere.context.admin_url.as_ref().unwrap());
    let moved_path = bench.place.path().join("moved.toml");
    fs::write(&moved_path, moved).unwrap();
    let before = fs::read(config.place.data_dir.join("identity/root.pub")).unwrap();
    refused(bench.enrol(&moved_path, &code).await, "belongs to another installation");
    assert_eq!(
        fs::read(config.place.data_dir.join("identity/root.pub")).unwrap(),
        before
    );
}

#[tokio::test]
async fn a_process_says_what_it_waits_for_and_goes_on_when_it_is_there() {
    let process = Process::new(Config::default(), &Shutdown::new(Duration::from_secs(1)));
    let there = tempfile::tempdir().unwrap();
    let flag = there.path().join("flag");
    let waiting = super::wait(&process, "store", || async {
        fs::read(&flag).map_err(|_| Failure::failed("nobody answers at 127.0.0.1:5432"))
    });
    let asking = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let readiness = process.health.readiness();
        assert!(!readiness.ready);
        assert_eq!(readiness.parts[0].reason, "waiting: nobody answers at 127.0.0.1:5432");
        fs::write(&flag, "there").unwrap();
    };
    let (found, ()) = tokio::join!(waiting, asking);
    assert_eq!(found, b"there");
    assert!(
        process.health.readiness().parts.is_empty(),
        "it waits for nothing any more"
    );
}
