//! A private PostgreSQL server: a cluster of its own in a temporary directory, on a free port of loopback.
//!
//! Starting is quick: `initdb` runs once for a build directory and its result is copied. `fsync` is on, because durability is among
//! the things that are tested. Dropping the server stops it.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

/// The superuser of every server.
pub const USER: &str = "bulkhead";
/// Its password.
pub const PASSWORD: &str = "only for tests";

/// Changes when `initdb` is called differently, so that an older image is not used.
const IMAGE: &str = "postgres-image-2";
/// How long a server may take to start, with a crash recovery before it.
const START: Duration = Duration::from_mins(1);
/// How long it may take to stop.
const STOP: Duration = Duration::from_secs(30);

/// A running (or stopped, or frozen) server.
#[derive(Debug)]
pub struct Postgres {
    directory: TempDir,
    binaries: PathBuf,
    port: u16,
    settings: Vec<(String, String)>,
    postmaster: Option<Child>,
    frozen: bool,
}

impl Postgres {
    /// Starts an empty server.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// Starts an empty server with these settings beside (and before) the usual ones.
    pub fn start_with(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let binaries = binaries()?;
        let image = image(&binaries)?;
        let directory = tempfile::Builder::new().prefix("postgres-").tempdir()?;
        give(directory.path())?;
        let copied = Command::new("cp")
            .arg("-a")
            .arg(image)
            .arg(directory.path().join("data"))
            .status()?;
        ensure!(
            copied.success(),
            "the image of a PostgreSQL cluster could not be copied"
        );
        let password = directory.path().join("password");
        fs::write(&password, PASSWORD)?;
        fs::set_permissions(&password, fs::Permissions::from_mode(0o600))?;
        let mut server = Self {
            directory,
            binaries,
            port: 0,
            settings: settings
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            postmaster: None,
            frozen: false,
        };
        // Between finding a free port and taking it somebody else may take it.
        let mut attempts = 0;
        loop {
            attempts += 1;
            server.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(error) if attempts == 5 => return Err(error),
                Err(_) => server.kill()?,
            }
        }
    }

    /// Where it listens, on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The directory of its UNIX socket, its log (`log`) and its password file (`password`); its data are in `data`.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A file with the password.
    pub fn password_file(&self) -> PathBuf {
        self.directory().join("password")
    }

    /// Sets something for the next [`Self::launch`].
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.into(), value.into()));
    }

    /// Writes a file that only the server can read (a key, a `pg_hba.conf`) into its directory.
    pub fn write_file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.directory().join(name);
        fs::write(&path, content)?;
        give(&path)?;
        Ok(path)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read(self.directory().join("log"))
            .map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).into())
    }

    /// Makes an empty database.
    pub fn create_database(&self, name: &str) -> anyhow::Result<()> {
        self.psql("postgres", &format!("CREATE DATABASE {name}")).map(drop)
    }

    /// Runs statements with `psql` and returns what they print: rows by line, columns divided by `|`.
    pub fn psql(&self, database: &str, statements: &str) -> anyhow::Result<String> {
        let mut child = self
            .psql_command(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("psql has no input")?;
        input.write_all(statements.as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql: {errors}");
        Ok(text)
    }

    /// `psql` on this server, for a test that wants a client process of its own. It stops at the first error and prints bare rows.
    pub fn psql_command(&self, database: &str) -> Command {
        let mut command = Command::new(self.binaries.join("psql"));
        command
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                USER,
            ])
            .args(["-p", &self.port.to_string(), "-d", database])
            .env("PGPASSWORD", PASSWORD);
        command
    }

    /// Stops it as an operator would, without waiting for clients (`pg_ctl stop -m fast`).
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.resume()?;
        if let Some(postmaster) = &self.postmaster {
            signal(postmaster.id(), libc::SIGINT)?;
        }
        self.reap(STOP)
    }

    /// Kills all its processes at once (SIGKILL), as a power cut would end them.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(postmaster) = self.postmaster.as_ref().map(Child::id) {
            // First the one that would make more. A server does not start while a process of the one before it is there.
            let processes = freeze(postmaster)?;
            signal(postmaster, libc::SIGKILL)?;
            for &process in &processes {
                // It may be gone by now.
                let _ = signal(process, libc::SIGKILL);
            }
            self.reap(STOP)?;
            for process in processes {
                wait_for(process, STOP, |state| state.is_none_or(|state| state == 'Z'))?;
            }
        }
        self.frozen = false;
        Ok(())
    }

    /// Freezes all its processes (SIGSTOP): connections stay open and nobody answers.
    pub fn suspend(&mut self) -> anyhow::Result<()> {
        if let Some(postmaster) = &self.postmaster {
            for child in freeze(postmaster.id())? {
                let _ = signal(child, libc::SIGSTOP);
            }
            self.frozen = true;
        }
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&mut self) -> anyhow::Result<()> {
        if let Some(postmaster) = self.postmaster.as_ref().filter(|_| self.frozen) {
            for child in children(postmaster.id())? {
                let _ = signal(child, libc::SIGCONT);
            }
            signal(postmaster.id(), libc::SIGCONT)?;
        }
        self.frozen = false;
        Ok(())
    }

    /// Stops it and starts it again on the same port.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop()?;
        self.launch()
    }

    /// Starts it again on the same port, after [`Self::stop`] or [`Self::kill`].
    pub fn launch(&mut self) -> anyhow::Result<()> {
        ensure!(self.postmaster.is_none(), "the server runs already");
        let data = self.directory().join("data");
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory().join("log"))?;
        let mut command = Command::new(self.binaries.join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(self.directory());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        for (name, value) in [
            ("fsync", "on"),
            ("shared_buffers", "64MB"),
            ("max_connections", "200"),
            ("log_min_messages", "warning"),
            // After a crash one call flushes what the copy of the image left unwritten, not one a file.
            ("recovery_init_sync_method", "syncfs"),
            ("log_line_prefix", "%m [%p] "),
        ] {
            if !self.settings.iter().any(|(given, _)| given == name) {
                command.arg("-c").arg(format!("{name}={value}"));
            }
        }
        for (name, value) in &self.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        become_owner(&mut command)?;
        self.postmaster = Some(command.spawn().context("postgres could not be started")?);
        self.wait_until_ready(&data.join("postmaster.pid"))
    }

    /// Process id of the postmaster, if it runs.
    pub fn id(&self) -> Option<u32> {
        self.postmaster.as_ref().map(Child::id)
    }

    /// CPU time (user and system) of its living processes.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let Some(postmaster) = &self.postmaster else {
            return Ok(Duration::ZERO);
        };
        let mut nanos = 0_u64;
        for process in children(postmaster.id())?.into_iter().chain([postmaster.id()]) {
            let text = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
            let run = text
                .split_ascii_whitespace()
                .next()
                .and_then(|nanos| nanos.parse::<u64>().ok());
            nanos += run.unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// The server writes the state of its start into the last line of its lock file.
    fn wait_until_ready(&mut self, lock: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        while Instant::now() < deadline {
            let text = fs::read_to_string(lock).unwrap_or_default();
            let mut lines = text.lines();
            let mine = self.postmaster.as_ref().map(|child| child.id().to_string());
            if lines.next().map(str::to_owned) == mine && lines.next_back().is_some_and(|state| state.trim() == "ready")
            {
                return Ok(());
            }
            if let Some(status) = self.postmaster.as_mut().map(Child::try_wait).transpose()?.flatten() {
                self.postmaster = None;
                bail!("postgres ended at once with {status}:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("postgres was not ready after {START:?}:\n{}", self.log())
    }

    fn reap(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while let Some(postmaster) = &mut self.postmaster {
            if postmaster.try_wait()?.is_some() {
                self.postmaster = None;
            } else {
                ensure!(Instant::now() < deadline, "postgres did not stop within {limit:?}");
                thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Nothing of it is kept: it need not write a checkpoint.
        if let Err(error) = self.kill() {
            eprintln!(
                "a PostgreSQL server is left behind in {}: {error:#}",
                self.directory().display()
            );
        }
    }
}

/// The directory of the newest server's programs.
fn binaries() -> anyhow::Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .context("PostgreSQL is not installed: install the Debian package postgresql")?
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").exists())
        .collect();
    versions.sort_unstable();
    let (_, newest) = versions
        .pop()
        .context("no PostgreSQL server is in /usr/lib/postgresql")?;
    Ok(newest)
}

/// A cluster as `initdb` makes it, made once for a build directory: found beside the running test.
fn image(binaries: &Path) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let build = program
        .ancestors()
        .nth(2)
        .context("the test is in no build directory")?;
    let version = binaries.parent().and_then(Path::file_name).context("no version")?;
    let image = build.join(format!("{IMAGE}-{}", version.display()));
    if image.exists() {
        return Ok(image);
    }
    let directory = tempfile::Builder::new().prefix("postgres-image-").tempdir()?;
    give(directory.path())?;
    let password = directory.path().join("password");
    fs::write(&password, PASSWORD)?;
    give(&password)?;
    let data = directory.path().join("data");
    let mut command = Command::new(binaries.join("initdb"));
    command
        .arg("-D")
        .arg(&data)
        .args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"])
        .args(["--wal-segsize=4", "--no-sync"])
        .arg("--pwfile")
        .arg(&password)
        .current_dir(directory.path());
    become_owner(&mut command)?;
    let output = command.output().context("initdb could not be started")?;
    ensure!(
        output.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    // Several tests may do this at once: whoever comes first leaves it there for all.
    let near = tempfile::Builder::new().prefix("postgres-image-").tempdir_in(build)?;
    let copied = Command::new("cp")
        .arg("-a")
        .arg(&data)
        .arg(near.path().join("data"))
        .status()?;
    ensure!(
        copied.success(),
        "the cluster could not be copied to {}",
        build.display()
    );
    if let Err(error) = fs::rename(near.path().join("data"), &image)
        && !image.exists()
    {
        return Err(error).context("the image of a cluster could not be kept");
    }
    Ok(image)
}

/// PostgreSQL refuses to run as root: then its own user runs it.
fn owner() -> anyhow::Result<Option<(u32, u32)>> {
    let is_root = fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0)?;
    if !is_root {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut postgres = fields.filter(|fields| fields.first() == Some(&"postgres") && fields.len() > 3);
    let user = postgres
        .next()
        .context("there is no user postgres to run the server as")?;
    Ok(Some((user[2].parse()?, user[3].parse()?)))
}

fn become_owner(command: &mut Command) -> anyhow::Result<()> {
    if let Some((user, group)) = owner()? {
        command.uid(user).gid(group);
    }
    Ok(())
}

/// Gives a file or directory to whoever runs the server, and to nobody else.
fn give(path: &Path) -> anyhow::Result<()> {
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if let Some((user, group)) = owner()? {
        chown(path, Some(user), Some(group))?;
    }
    Ok(())
}

/// Processes whose parent is this one.
fn children(parent: u32) -> anyhow::Result<Vec<u32>> {
    let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let listed = listed.with_context(|| format!("process {parent} is gone"))?;
    Ok(listed
        .split_ascii_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect())
}

/// Stops a process (SIGSTOP), and says which children it has from then on.
fn freeze(process: u32) -> anyhow::Result<Vec<u32>> {
    signal(process, libc::SIGSTOP)?;
    wait_for(process, STOP, |state| {
        state.is_none_or(|state| matches!(state, 'T' | 'Z'))
    })?;
    children(process)
}

/// Waits until the state of a process (one letter, `None` once it is gone) is as it should be.
fn wait_for(process: u32, limit: Duration, is_right: impl Fn(Option<char>) -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let text = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        // The name before it may hold anything.
        let state = text.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if is_right(state) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "process {process} is still {state:?} after {limit:?}"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

fn signal(process: u32, signal: i32) -> anyhow::Result<()> {
    let name = match signal {
        libc::SIGINT => "-INT",
        libc::SIGKILL => "-KILL",
        libc::SIGSTOP => "-STOP",
        _ => "-CONT",
    };
    let sent = Command::new("kill")
        .arg(name)
        .arg(process.to_string())
        .stderr(Stdio::null())
        .status()?;
    ensure!(sent.success(), "process {process} cannot be sent {name}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_what_was_committed_through_a_kill() {
        let started = Instant::now();
        let mut server = Postgres::start().unwrap();
        println!("started in {:?}", started.elapsed());
        server.create_database("one").unwrap();
        let made = "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2);";
        server.psql("one", made).unwrap();
        server.kill().unwrap();
        assert!(server.psql("one", "SELECT 1").is_err());
        server.launch().unwrap();
        assert_eq!(server.psql("one", "SELECT n FROM t ORDER BY n").unwrap(), "1\n2");
        server.restart().unwrap();
        assert_eq!(server.psql("one", "SELECT count(*) FROM t").unwrap(), "2");
        assert_eq!(server.psql("one", "SHOW fsync").unwrap(), "on");
    }

    #[test]
    fn a_frozen_server_answers_nobody_until_it_goes_on() {
        let mut server = Postgres::start().unwrap();
        server.suspend().unwrap();
        let mut asks = server.psql_command("postgres");
        asks.args(["-c", "SELECT 1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut asks = asks.spawn().unwrap();
        thread::sleep(Duration::from_millis(300));
        assert!(asks.try_wait().unwrap().is_none(), "a frozen server answered");
        server.resume().unwrap();
        assert!(asks.wait().unwrap().success());
    }
}
