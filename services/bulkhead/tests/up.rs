//! The program from outside: started, asked, stopped, started again.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_bulkhead");
const START_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// An installation in a directory of its own, and the process that serves it.
struct Up {
    place: TempDir,
    process: Option<Child>,
}

impl Up {
    fn new() -> Self {
        let mut up = Self {
            place: tempfile::tempdir().unwrap(),
            process: None,
        };
        up.start();
        up
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    fn start(&mut self) {
        let ready = self.path("ready.json");
        // A process that was killed has left its own behind.
        let _ = fs::remove_file(&ready);
        let log = fs::File::create(self.path("log")).unwrap();
        let process = Command::new(PROGRAM)
            .args(["up", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.path("data"))
            .arg("--ready-file")
            .arg(&ready)
            .stdout(fs::File::create(self.path("printed")).unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = self.process.insert(process);
        let began = Instant::now();
        while !ready.exists() {
            let ended = process.try_wait().unwrap();
            let log = || fs::read_to_string(self.place.path().join("log")).unwrap();
            assert!(ended.is_none(), "ended at its start: {ended:?}\n{}", log());
            assert!(began.elapsed() < START_LIMIT, "not ready in time\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal by name and waits for the end.
    fn stop(&mut self, signal: &str) -> ExitStatus {
        let mut process = self.process.take().unwrap();
        let sent = Command::new("kill")
            .args(["-s", signal, &process.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let began = Instant::now();
        loop {
            if let Some(status) = process.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < STOP_LIMIT, "still there after {signal}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn context(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("data/context.json")).unwrap()).unwrap()
    }

    /// Runs an operator's command in the installation's directory.
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(PROGRAM)
            .args(arguments)
            .env("BULKHEAD_CONTEXT", self.path("data/context.json"))
            .current_dir(self.place.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same; it must succeed, and prints JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The same; it must end with this code and say this.
    fn fails(&self, arguments: &[&str], code: i32, said: &str) {
        let output = self.run(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }

    /// What a shell makes of a script in the installation's directory.
    fn shell(&self, script: &str) -> String {
        let output = Command::new("sh")
            .args(["-e", "-c", script])
            .current_dir(self.place.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}\n{}", text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Only its own process, by its number; it may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn a_stranger_gets_a_certificate_with_what_is_printed() {
    let up = Up::new();
    let printed = fs::read_to_string(up.path("printed")).unwrap();
    assert!(printed.contains("self-check       certificate 01"), "{printed}");
    let commands: Vec<&str> = printed
        .lines()
        .skip_while(|line| !line.starts_with("openssl req"))
        .take_while(|line| !line.is_empty())
        .collect();
    assert_eq!(commands.len(), 7, "{printed}");
    let verified = up.shell(&commands.join("\n"));
    assert!(verified.contains("www.pem: OK"), "{verified}");

    let own = printed
        .lines()
        .find(|line| line.starts_with("bulkhead cert issue"))
        .unwrap();
    up.shell(&own.replacen("bulkhead", PROGRAM, 1));
    up.shell("openssl verify -x509_strict -CAfile chain.pem cert.pem");
    assert_eq!(mode(&up.path("key.pem")), 0o600);

    let secret = up.context()["accounts"][0]["api_secret"].as_str().unwrap().to_owned();
    let mut log = String::new();
    fs::File::open(up.path("log"))
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(!printed.contains(&secret) && !log.contains(&secret));
}

#[test]
fn the_context_file_says_where_everything_is_and_a_restart_keeps_it() {
    let mut up = Up::new();
    let context = up.context();
    assert_eq!(
        fs::read(up.path("ready.json")).unwrap(),
        fs::read(up.path("data/context.json")).unwrap()
    );
    assert_eq!(
        (mode(&up.path("ready.json")), mode(&up.path("data/context.json"))),
        (0o600, 0o600)
    );
    let keys: Vec<&String> = context.as_object().unwrap().keys().collect();
    let promised = [
        "accounts",
        "admin_url",
        "client_cert_file",
        "client_key_file",
        "metrics_url",
        "operators",
        "tls_ca_file",
        "url",
    ];
    assert_eq!(keys, promised);
    assert!(context["url"].as_str().unwrap().ends_with("/v2"));
    let names = |list: &str| -> Vec<String> {
        let entries = context[list].as_array().unwrap().iter();
        entries
            .map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("accounts"), ["demo-p256", "demo-rsa2048"]);
    assert_eq!(names("operators").len(), 2);
    for file in ["tls_ca_file", "client_cert_file", "client_key_file"] {
        assert!(Path::new(context[file].as_str().unwrap()).is_absolute());
    }

    let second = Command::new(PROGRAM)
        .args(["up", "--listen", "127.0.0.1:0", "--data"])
        .arg(up.path("data"))
        .output()
        .unwrap();
    let error = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{error}");
    let pid = up.process.as_ref().unwrap().id().to_string();
    assert!(
        error.contains(&pid) && error.contains(up.path("data").to_str().unwrap()),
        "{error}"
    );

    let jobs = up.json(&["job", "list"]);
    assert!(
        up.stop("TERM").success(),
        "{}",
        fs::read_to_string(up.path("log")).unwrap()
    );
    up.start();
    assert_eq!(up.context(), context);
    let after = up.json(&["job", "list"]);
    assert_eq!(
        after[1], jobs[0],
        "what was issued before is still there, behind the self-check's"
    );
    up.stop("KILL");
    up.start();
    assert_eq!(up.context(), context);
    assert!(up.stop("INT").success());
}

#[test]
fn a_lost_context_file_costs_new_secrets_and_nothing_else() {
    let mut up = Up::new();
    let before = up.context();
    assert!(up.stop("TERM").success());
    fs::remove_file(up.path("data/context.json")).unwrap();
    up.start();
    let after = up.context();
    assert_eq!(after["url"], before["url"]);
    assert_eq!(after["accounts"][0]["name"], before["accounts"][0]["name"]);
    assert_ne!(after["accounts"][0]["api_secret"], before["accounts"][0]["api_secret"]);
    let issue = [
        "cert",
        "issue",
        "--new-key",
        "P-256",
        "--key-out",
        "k.pem",
        "--cn",
        "www.example.com",
    ];
    assert_eq!(up.json(&issue)["status"], "ISSUED");
}

#[test]
fn an_operator_disables_revokes_and_brings_an_issuer_of_his_own() {
    let mut up = Up::new();
    let issue = [
        "cert",
        "issue",
        "--new-key",
        "P-256",
        "--key-out",
        "k.pem",
        "--cn",
        "www.example.com",
    ];
    let serial = up.json(&issue)["serial"].as_str().unwrap().to_owned();
    up.fails(&issue, 2, "never overwritten");
    assert_eq!(up.json(&["cert", "show", &serial])["subject"], "CN=www.example.com");
    assert_eq!(
        up.json(&["cert", "revoke", &serial, "--reason", "superseded"])["outcome"],
        "revoked"
    );
    up.fails(
        &["cert", "revoke", &serial, "--reason", "superseded"],
        4,
        "revoked already",
    );
    assert_eq!(
        up.json(&["cert", "show", &serial])["revocation"]["reason"],
        "superseded"
    );
    assert_eq!(up.json(&["job", "show", &serial])["job"]["revoked"], true);

    let disable = ["issuer", "disable", "demo-p256", "--reason", "drill"];
    assert_eq!(up.json(&disable)["changed"], true);
    assert_eq!(up.json(&disable)["changed"], false);
    let again = [
        "cert",
        "issue",
        "--new-key",
        "P-256",
        "--key-out",
        "k2.pem",
        "--cn",
        "www.example.com",
    ];
    up.fails(&again, 4, "issuer_disabled");
    assert!(!up.path("k2.pem").exists(), "a refused request leaves a key behind");
    assert!(up.stop("TERM").success());
    up.start();
    let printed = fs::read_to_string(up.path("printed")).unwrap();
    assert!(printed.contains("under demo-rsa2048"), "{printed}");
    up.json(&["issuer", "disable", "demo-rsa2048", "--reason", "drill"]);
    assert!(up.stop("TERM").success());
    up.start();
    let printed = fs::read_to_string(up.path("printed")).unwrap();
    assert!(printed.contains("none: no issuer may issue now"), "{printed}");
    up.json(&["issuer", "enable", "demo-p256", "--reason", "over", "--as", "bob"]);
    assert_eq!(up.json(&again)["status"], "ISSUED");

    up.json(&["issuer", "keygen", "own", "--type", "P-384", "--reason", "test"]);
    up.json(&[
        "issuer",
        "csr",
        "own",
        "--subject",
        "O=Example,CN=Own",
        "--out",
        "own.csr",
    ]);
    up.shell(
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -subj '/CN=Root' -days 30 \
         -addext keyUsage=critical,keyCertSign,cRLSign
         printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' > extensions
         openssl x509 -req -in own.csr -CA root.pem -CAkey root.key -days 20 -extfile extensions -out own.pem
         cat own.pem root.pem > chain-own.pem",
    );
    up.json(&["issuer", "activate", "own", "chain-own.pem", "--reason", "test"]);
    let sample = up.run(&["profile", "sample", "--id", "own-tls", "--key-type", "RSA-2048"]);
    fs::write(up.path("own-tls.toml"), &sample.stdout).unwrap();
    up.json(&["profile", "put", "own-tls.toml", "--reason", "test"]);
    up.json(&[
        "account",
        "add",
        "client",
        "--issuer",
        "own",
        "--profile",
        "own-tls",
        "--save",
        "--reason",
        "test",
    ]);
    let own = [
        "cert",
        "issue",
        "--account",
        "client",
        "--new-key",
        "RSA-2048",
        "--key-out",
        "o.pem",
        "--cn",
        "own.example.com",
        "--out",
        "own-cert.pem",
        "--chain-out",
        "own-chain.pem",
    ];
    up.json(&own);
    up.shell("openssl verify -x509_strict -CAfile own-chain.pem own-cert.pem");
    assert!(up.stop("TERM").success());
    up.start();
    assert_eq!(
        up.context()["accounts"][2]["name"],
        "client",
        "what was saved is forgotten"
    );
}

#[test]
fn what_is_wrong_is_named_and_ends_with_2() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("bulkhead.toml");
    let run = |arguments: &[&str]| {
        Command::new(PROGRAM)
            .args(arguments)
            .current_dir(place.path())
            .env_remove("BULKHEAD_CONTEXT")
            .output()
            .unwrap()
    };
    fs::write(&file, "[signer]\nthreds = 2\n").unwrap();
    for arguments in [
        &["config", "check", "bulkhead.toml"][..],
        &["up", "--config", "bulkhead.toml", "--data", "d"],
    ] {
        let output = run(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(
            error.contains("bulkhead.toml: signer.threds") && error.contains("threads"),
            "{error}"
        );
    }
    assert!(!place.path().join("d").exists());
    let sample = run(&["config", "sample"]);
    fs::write(&file, &sample.stdout).unwrap();
    assert!(run(&["config", "check", "bulkhead.toml"]).status.success());

    let nowhere = run(&["issuer", "list"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("bulkhead up"));
    for wrong in [
        &["issuer", "disable", "x"][..],
        &["cert", "show", "0x1"],
        &["up", "--listen", "here"],
        &[],
    ] {
        assert_eq!(run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
