//! The whole program with PKCS#11 tokens, and issuers on them that are made as operators make them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use hsm_faults::SoftHsm;
use serde_json::Value;
use tests::{Client, Deployment, Key, Root};

pub const PATIENCE: Duration = Duration::from_secs(40);

/// `bulkhead up` with the tokens `first` and `second` of a SoftHSM.
pub struct World {
    deployment: Deployment,
    directory: tempfile::TempDir,
    authority: Authority,
    /// Key and secret of each account.
    accounts: Mutex<BTreeMap<String, (String, String)>>,
}

impl World {
    /// Starts the program. The tokens are used through `module`, with this in the environment.
    pub fn start(hsm: &SoftHsm, module: &Path, environment: &[(&str, PathBuf)]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("bulkhead.toml");
        let tokens: Vec<String> = ["first", "second"]
            .iter()
            .map(|label| {
                format!(
                    "[[token]]\nname = \"{label}\"\nkind = \"pkcs11\"\nmodule = \"{}\"\nlabel = \"{label}\"\npin_file = \"{}\"\n",
                    module.display(),
                    hsm.pin_file().display()
                )
            })
            .collect();
        fs::write(&config, tokens.concat())?;
        let config = config.to_str().context("a path that is no text")?;
        let mut deployment = Deployment::new(&["--config", config])?.with_environment(hsm.environment());
        for (name, value) in environment {
            deployment = deployment.with_environment((name, value.clone()));
        }
        deployment.start()?;
        Ok(Self {
            deployment,
            authority: Authority::new(directory.path())?,
            directory,
            accounts: Mutex::default(),
        })
    }

    /// An issuer with a key that is made on a token, and an account under it that has logged in.
    pub async fn issuer(&self, name: &str, token: &str, key_type: &str) -> Result<Client> {
        let run = |arguments: &[&str]| {
            let output = self.deployment.bulkhead(arguments)?;
            let error = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "bulkhead {}: {error}", arguments.join(" "));
            Ok(String::from_utf8(output.stdout)?)
        };
        let credentials = self.authority.issuer(&run, name, token, key_type)?;
        self.accounts
            .lock()
            .map_err(|_| anyhow::anyhow!("a test has panicked"))?
            .insert(name.to_owned(), credentials);
        self.client(name).await
    }

    /// A client of the account of that name.
    pub async fn client(&self, name: &str) -> Result<Client> {
        let accounts = self
            .accounts
            .lock()
            .map_err(|_| anyhow::anyhow!("a test has panicked"))?
            .clone();
        let (key, secret) = &accounts[name];
        let mut client = self.deployment.client(0)?.of_account(key, secret);
        client.login().await?;
        Ok(client)
    }

    /// Stops the program and starts it again.
    pub fn restart(&mut self) -> Result<()> {
        self.deployment.stop()?;
        self.deployment.start()
    }

    pub fn stop(mut self) -> Result<()> {
        self.deployment.stop()
    }

    /// Kills the program.
    pub fn kill(mut self) -> Result<()> {
        self.deployment.kill()
    }

    pub fn log(&self) -> String {
        self.deployment.log()
    }

    /// Runs an operator's command.
    pub fn bulkhead(&self, arguments: &[&str]) -> Result<std::process::Output> {
        self.deployment.bulkhead(arguments)
    }

    /// The same; it must succeed and print JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.deployment.json(arguments)
    }

    /// `bulkhead token retry`.
    pub fn retry(&self, token: &str) -> Result<Value> {
        let config = self.directory.path().join("bulkhead.toml").display().to_string();
        let data = self.deployment.data().display().to_string();
        self.deployment
            .json(&["token", "retry", token, "--config", &config, "--data", &data])
    }

    /// The processes of the tokens.
    pub fn workers(&self) -> Result<Vec<u32>> {
        let parent = self.deployment.id().context("the program does not run")?;
        let listed = Command::new("ps")
            .args(["-o", "pid=,args=", "--ppid", &parent.to_string()])
            .output()?;
        let listed = String::from_utf8(listed.stdout)?;
        listed
            .lines()
            .filter(|line| line.contains("token-worker"))
            .map(|line| {
                Ok(line
                    .split_whitespace()
                    .next()
                    .context("a line without a number")?
                    .parse()?)
            })
            .collect()
    }
}

/// The CA above the issuers of a test.
pub struct Authority {
    root: Root,
    directory: PathBuf,
}

impl Authority {
    /// A new one, which keeps files in a directory.
    pub fn new(directory: &Path) -> Result<Self> {
        Ok(Self {
            root: Root::new("Root of tokens")?,
            directory: directory.to_owned(),
        })
    }

    /// Makes an issuer with a key that is made on a token, and an account under it: its key and secret. `run` runs a command that must
    /// succeed, and says what it printed.
    pub fn issuer(
        &self,
        run: &dyn Fn(&[&str]) -> Result<String>,
        name: &str,
        token: &str,
        key_type: &str,
    ) -> Result<(String, String)> {
        let json = |arguments: &[&str]| -> Result<Value> {
            Ok(serde_json::from_str(&run(
                &[arguments, &["--output", "json"]].concat()
            )?)?)
        };
        let file = |suffix: &str| self.directory.join(format!("{name}.{suffix}")).display().to_string();
        let (request, chain, profile) = (file("csr"), file("pem"), file("toml"));
        let made = json(&[
            "issuer", "keygen", name, "--type", key_type, "--token", token, "--reason", "test",
        ])?;
        ensure!(made["fit_for_real_ca"] == true, "{made}");
        let subject = format!("O=Tokens,CN={name}");
        json(&[
            "issuer",
            "csr",
            name,
            "--subject",
            &subject,
            "--token",
            token,
            "--out",
            &request,
        ])?;
        fs::write(&chain, self.root.chain(&fs::read_to_string(&request)?)?)?;
        json(&["issuer", "activate", name, &chain, "--token", token, "--reason", "test"])?;
        fs::write(
            &profile,
            run(&["profile", "sample", "--id", name, "--key-type", "P-256"])?,
        )?;
        json(&["profile", "put", &profile, "--reason", "test"])?;
        let account = json(&[
            "account",
            "add",
            name,
            "--issuer",
            name,
            "--profile",
            name,
            "--reason",
            "test",
        ])?;
        let text = |value: &Value| {
            value
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no credentials: {account}"))
        };
        Ok((text(&account["account"]["api_key"])?, text(&account["api_secret"])?))
    }
}

/// Issues one certificate, at once.
pub async fn issue(client: &Client, name: &str) -> Result<()> {
    issue_within(client, name, Duration::from_secs(10)).await
}

/// Issues one certificate.
pub async fn issue_within(client: &Client, name: &str, patience: Duration) -> Result<()> {
    let key = Key::p256()?;
    let answer = client.post(&key.request(name)?, name, &[]).await?;
    ensure!(answer.status == 201, "{name}: {answer:?}");
    let certificate = client.certificate(answer.serial()?, patience).await?;
    let parsed = pki::certificate::read(&certificate)?;
    ensure!(
        parsed.public_key == key.public_key(),
        "{name}: the certificate is for another key"
    );
    Ok(())
}
