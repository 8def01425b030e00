//! What the nodes of one installation share: a directory, an Erlang cookie, an epmd, a user.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::BuildHasher,
    net::{TcpListener, TcpStream},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context;
use tempfile::TempDir;

/// Where Debian keeps the scripts behind its wrappers.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
/// Distribution on loopback only, and no epmd beside ours, which would stay behind.
const ERLANG: &str = "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false";
/// How long epmd may take to listen.
const EPMD_START: Duration = Duration::from_secs(20);
/// Ports are taken below the range that outgoing connections come from: nobody is given one by chance while its node is down, and
/// nobody who tries to connect to it meanwhile meets himself there.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 11_000;

/// A directory with a cookie, and an epmd. Dropping it ends the epmd and removes the directory.
#[derive(Debug)]
pub(super) struct Home {
    user: Option<(u32, u32)>,
    directory: TempDir,
    epmd_port: u16,
    epmd: Child,
}

impl Home {
    pub fn new() -> anyhow::Result<Self> {
        let user = server_user()?;
        let directory = tempfile::Builder::new().prefix("rabbitmq-").tempdir()?;
        own(user, directory.path())?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))?;
        let cookie = directory.path().join(".erlang.cookie");
        fs::write(&cookie, format!("{:x}", RandomState::new().hash_one(0)))?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        own(user, &cookie)?;
        let epmd_port = free_port()?;
        let mut command = Command::new("epmd");
        command.args(["-port", &epmd_port.to_string(), "-address", "127.0.0.1"]);
        become_user(&mut command, user);
        let epmd = quiet(&mut command)
            .spawn()
            .context("start epmd: is Erlang installed?")?;
        let home = Self {
            user,
            directory,
            epmd_port,
            epmd,
        };
        let deadline = Instant::now() + EPMD_START;
        while TcpStream::connect(("127.0.0.1", epmd_port)).is_err() {
            anyhow::ensure!(Instant::now() < deadline, "epmd does not listen on port {epmd_port}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(home)
    }

    /// A directory that the server may write.
    pub fn directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let directory = self.directory.path().join(name);
        fs::create_dir(&directory)?;
        own(self.user, &directory)?;
        Ok(directory)
    }

    /// Writes a file that the server may read.
    pub fn write(&self, file: &Path, text: &[u8]) -> anyhow::Result<()> {
        fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        own(self.user, file)
    }

    /// One of RabbitMQ's scripts, as the server's user, knowing nothing of a broker of the machine.
    pub fn command(&self, script: &str, descriptors: Option<u64>) -> Command {
        let script = Path::new(SCRIPTS).join(script);
        let mut command = match descriptors {
            None => Command::new(script),
            Some(limit) => {
                let mut command = Command::new("sh");
                command
                    .arg("-c")
                    .arg(format!("ulimit -n {limit} && exec \"$0\" \"$@\""))
                    .arg(script);
                command
            }
        };
        become_user(&mut command, self.user);
        quiet(&mut command)
            .env("HOME", self.directory.path())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            // The script then becomes the server itself, and its process id is the server's.
            .env("RUNNING_UNDER_SYSTEMD", "1")
            .env_remove("NOTIFY_SOCKET")
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERLANG)
            .env("RABBITMQ_CTL_ERL_ARGS", ERLANG)
            .current_dir(self.directory.path());
        command
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        end(&mut self.epmd);
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// User and group that the server runs as: `rabbitmq` when we are root, otherwise we ourselves.
fn server_user() -> anyhow::Result<Option<(u32, u32)>> {
    if fs::metadata("/proc/self").map(|of| std::os::unix::fs::MetadataExt::uid(&of))? != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let user = users.lines().find_map(|line| {
        let mut fields = line.strip_prefix("rabbitmq:")?.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Ok(Some(user.context("no user rabbitmq: install rabbitmq-server")?))
}

fn become_user(command: &mut Command, user: Option<(u32, u32)>) {
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
}

fn own(user: Option<(u32, u32)>, path: &Path) -> anyhow::Result<()> {
    let Some((user, group)) = user else { return Ok(()) };
    chown(path, Some(user), Some(group)).with_context(|| format!("give {} to the server", path.display()))
}

/// A port of loopback that is free now and given once by this process.
pub(super) fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = RandomState::new().hash_one(std::process::id()) % u64::from(PORTS);
    let _ = NEXT.compare_exchange(0, u16::try_from(start)?.max(1), Ordering::Relaxed, Ordering::Relaxed);
    (0..PORTS)
        .map(|_| FIRST_PORT + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .context("no free port on loopback")
}

/// Kills a child and waits for its end.
pub(super) fn end(child: &mut Child) {
    // Both fail only for a child that has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    Terminate,
    Stop,
    Continue,
}

pub(super) fn signal(child: &Child, signal: Signal) -> anyhow::Result<()> {
    let name = match signal {
        Signal::Terminate => "TERM",
        Signal::Stop => "STOP",
        Signal::Continue => "CONT",
    };
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status()?;
    anyhow::ensure!(sent.success(), "kill -s {name} {}: {sent}", child.id());
    Ok(())
}
