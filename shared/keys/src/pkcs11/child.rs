//! One child process of a token, seen from its parent: calls go in, answers come back by their numbers, and when it ends, everybody who
//! still waits is told.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt,
    io::{self, BufReader},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, Command},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use domain::failure::KeysFailure;

use super::{
    Options,
    fault::Fault,
    frame::{self, Answer, Asked, OPENING, Order, Outlet, Response, lock},
};

/// How long a process that was asked to end may take for it.
const FAREWELL: Duration = Duration::from_secs(4);

/// What is started for each token: it must call [`super::worker::run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

/// What came of a call, as far as its process is concerned.
pub(super) type Outcome = Result<Answer, Fault>;

/// A running child process. Dropping the last reference ends it: in an orderly way, or at once where something hangs in it.
pub(super) struct Worker {
    link: Arc<Link>,
    outlet: Outlet,
}

/// What the thread that reads answers shares with those who wait for them.
struct Link {
    child: Mutex<Child>,
    waiting: Mutex<Waiting>,
    hangs: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    calls: HashMap<u64, SyncSender<Outcome>>,
    ended: Option<Fault>,
}

/// A call that was not made: the process has ended before.
#[derive(Debug)]
pub(super) struct Ended;

impl Worker {
    /// Starts the process and has it open the token.
    ///
    /// Says as well why the token has no canary key, if it has none.
    pub fn start(program: &Program, options: &Options) -> Result<(Self, Option<String>), Fault> {
        let unable = |error: io::Error| {
            let detail = format!("cannot start {}: {error}", program.path.display());
            Fault::new(KeysFailure::Device, detail)
        };
        let (ours, theirs) = UnixStream::pair().map_err(unable)?;
        let child = Command::new(&program.path)
            .args(&program.arguments)
            .stdin(OwnedFd::from(theirs))
            // A library that prints shall not disturb anybody.
            .stdout(io::stderr())
            // What a terminal sends to this process's group is not meant for its children.
            .process_group(0)
            .spawn()
            .map_err(unable)?;
        let link = Arc::new(Link {
            child: Mutex::new(child),
            waiting: Mutex::default(),
            hangs: AtomicBool::new(false),
        });
        let worker = Self {
            link: link.clone(),
            outlet: Outlet::new(ours.try_clone().map_err(unable)?),
        };
        thread::Builder::new()
            .name("token-answers".into())
            .spawn(move || link.read_all(ours))
            .map_err(unable)?;
        let deadline = Instant::now() + options.slow_limit;
        match worker.call(OPENING, &Order::Open(options.clone()), deadline) {
            Ok(Ok(Answer::Opened { without_canary })) => Ok((worker, without_canary)),
            Ok(Ok(other)) => {
                let detail = format!("the token's process answers what it was not asked: {other:?}");
                Err(Fault::new(KeysFailure::Device, detail))
            }
            Ok(Err(fault)) => Err(fault),
            Err(Ended) => Err(Fault::new(KeysFailure::Device, "the token's process ended at once")),
        }
    }

    /// Has the process do something, until `deadline` at most.
    pub fn ask(&self, order: &Order, deadline: Instant) -> Result<Outcome, Ended> {
        let call = {
            let mut waiting = self.link.waiting();
            waiting.next += 1;
            waiting.next
        };
        self.call(call, order, deadline)
    }

    fn call(&self, call: u64, order: &Order, deadline: Instant) -> Result<Outcome, Ended> {
        let frame = match frame::encode(&Asked { call, order }) {
            Ok(frame) => frame,
            Err(error) => return Ok(Err(Fault::new(KeysFailure::OperationFailed, error))),
        };
        let (answer, answered) = sync_channel(1);
        {
            let mut waiting = self.link.waiting();
            if waiting.ended.is_some() {
                return Err(Ended);
            }
            waiting.calls.insert(call, answer);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        // A process that does not read is one that hangs, and is found out by the deadlines of those who wait.
        let _ = self.outlet.send(&frame, Some(left.max(Duration::from_millis(1))));
        Ok(self.await_answer(call, &answered, deadline))
    }

    fn await_answer(&self, call: u64, answered: &Receiver<Outcome>, deadline: Instant) -> Outcome {
        match answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Disconnected) => {
                Err(Fault::spent(KeysFailure::Device, "the token's process has ended"))
            }
            Err(RecvTimeoutError::Timeout) => {
                self.link.waiting().calls.remove(&call);
                self.link.hangs.store(true, Ordering::Release);
                Err(Fault::spent(KeysFailure::Hang, "the operation hangs and was given up"))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if self.link.hangs.load(Ordering::Acquire) {
            let _ = lock(&self.link.child).kill();
        }
        self.outlet.shut();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token process {}", lock(&self.link.child).id())
    }
}

impl Link {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    /// Hands out answers until the process closes its side, then sees to it that it ends.
    fn read_all(&self, socket: UnixStream) {
        let mut answers = BufReader::new(socket);
        let broken = loop {
            match frame::read::<Response>(&mut answers) {
                Ok(Some(Response { call, result })) => {
                    // Who has given up in the meantime is not there any more.
                    let waiter = self.waiting().calls.remove(&call);
                    if let Some(waiter) = waiter {
                        let _ = waiter.try_send(result);
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let how = self.reap();
        let why = broken.map(|error| format!(" ({error})")).unwrap_or_default();
        let fault = Fault::spent(
            KeysFailure::Device,
            format!("the token's process has ended: {how}{why}"),
        );
        let mut waiting = self.waiting();
        waiting.ended = Some(fault.clone());
        for (_, waiter) in waiting.calls.drain() {
            let _ = waiter.try_send(Err(fault.clone()));
        }
    }

    /// Waits for the end of the process, and brings it about if it takes too long.
    fn reap(&self) -> String {
        let until = Instant::now() + FAREWELL;
        loop {
            let mut child = lock(&self.child);
            match child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) if Instant::now() < until => {}
                Ok(None) => {
                    let _ = child.kill();
                    return child
                        .wait()
                        .map_or_else(|error| error.to_string(), |status| status.to_string());
                }
                Err(error) => return error.to_string(),
            }
            drop(child);
            thread::sleep(Duration::from_millis(5));
        }
    }
}
