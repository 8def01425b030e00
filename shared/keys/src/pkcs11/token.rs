//! A token, as the rest of the program sees it: calls with a limit, a bounded number at a time, and a process behind them that is replaced
//! when it is of no more use.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use domain::{
    failure::KeysFailure,
    id::TokenId,
    key::{KeyType, SignatureAlgorithm},
};

use super::{
    Options,
    child::{Ended, Program, Worker},
    fault::Fault,
    frame::{Answer, Order, Secret},
    login,
};
use crate::{KeyInfo, Keys, KeysError};

/// No token's process is started more often.
const RESTART_PERIOD: Duration = Duration::from_secs(1);

/// A PKCS#11 token, driven by a process of its own.
pub struct Pkcs11Token(Arc<Inner>);

struct Inner {
    token: TokenId,
    options: Options,
    program: Program,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    process: Process,
    /// Calls that are being made.
    seated: usize,
    started: Option<Instant>,
    /// Why the last process could not be started, as it was logged.
    problem: Option<String>,
}

/// The process that is asked now. Those that were asked before live on until the last call to them has ended.
enum Process {
    /// Why the last one could not be started, if it could not.
    Down(Option<Fault>),
    Starting,
    Up(Arc<Worker>),
}

impl Pkcs11Token {
    /// A token whose process is being started. Never fails: what is wrong with the token, its calls say.
    pub fn new(token: TokenId, options: Options, program: Program) -> Self {
        let inner = Arc::new(Inner {
            token,
            options,
            program,
            state: Mutex::new(State {
                process: Process::Down(None),
                seated: 0,
                started: None,
                problem: None,
            }),
            changed: Condvar::new(),
        });
        inner.start(&mut inner.state());
        Self(inner)
    }

    fn ask(&self, order: &Order) -> Result<Answer, KeysError> {
        let limit = match order {
            Order::Open(_) | Order::List | Order::Generate { .. } | Order::Import { .. } => self.0.options.slow_limit,
            Order::Find { .. } | Order::Sign { .. } | Order::SignCanary { .. } | Order::Destroy { .. } => {
                self.0.options.operation_limit
            }
        };
        self.0.ask(order, limit).map_err(|fault| self.error(fault))
    }

    fn error(&self, Fault { failure, detail, .. }: Fault) -> KeysError {
        KeysError {
            token: self.0.token.clone(),
            failure,
            detail,
        }
    }

    fn unexpected(&self, answer: &Answer) -> KeysError {
        self.error(Fault::new(
            KeysFailure::Device,
            format!("the token's process answers what it was not asked: {answer:?}"),
        ))
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Instant) -> MutexGuard<'a, State> {
        let left = until.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout(state, left);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for a seat and a process for at most `limit`, and then as long for the answer: only what the process was given can hang.
    fn ask(self: &Arc<Self>, order: &Order, limit: Duration) -> Result<Answer, Fault> {
        let patience = Instant::now() + limit;
        let _seat = self.sit(patience)?;
        loop {
            let worker = self.worker(patience, limit)?;
            match worker.ask(order, Instant::now() + limit) {
                Ok(outcome) => {
                    if outcome.as_ref().is_err_and(|fault| fault.spent) {
                        self.give_up(&worker);
                    }
                    return outcome;
                }
                // It was not asked, so the next one may be.
                Err(Ended) => self.give_up(&worker),
            }
        }
    }

    /// A seat: as many calls at a time as keep every session busy, and one more for each.
    fn sit(self: &Arc<Self>, deadline: Instant) -> Result<Seat, Fault> {
        let seats = usize::from(self.options.sessions) * 2;
        let mut state = self.state();
        while state.seated >= seats {
            if Instant::now() >= deadline {
                return Err(Fault::new(
                    KeysFailure::Hang,
                    format!("{seats} operations have made no progress for as long as one may take"),
                ));
            }
            state = self.wait(state, deadline);
        }
        state.seated += 1;
        Ok(Seat(self.clone()))
    }

    /// The process that is up. Waits for one that is being started, or may soon be; one that could not be started is tried again only
    /// after a while, and until then its failure is the answer. A start that has taken `limit` already is not waited for: who asks many
    /// things, one after the other, shall not wait as often.
    fn worker(self: &Arc<Self>, deadline: Instant, limit: Duration) -> Result<Arc<Worker>, Fault> {
        let mut state = self.state();
        loop {
            let until = match &state.process {
                Process::Up(worker) => return Ok(worker.clone()),
                Process::Starting => state.started.map_or(deadline, |started| deadline.min(started + limit)),
                Process::Down(why) => {
                    let due = state.started.map(|started| started + RESTART_PERIOD);
                    match (due.filter(|due| *due > Instant::now()), why) {
                        (Some(_), Some(why)) => return Err(why.clone()),
                        (Some(due), None) => due.min(deadline),
                        (None, _) => {
                            self.start(&mut state);
                            continue;
                        }
                    }
                }
            };
            if Instant::now() >= until {
                return Err(Fault::new(
                    KeysFailure::Device,
                    "the token's process is being started, and takes longer than the operation may",
                ));
            }
            state = self.wait(state, until);
        }
    }

    /// Starts a process on a thread of its own, so that nobody waits longer for it than he may.
    fn start(self: &Arc<Self>, state: &mut State) {
        state.process = Process::Starting;
        state.started = Some(Instant::now());
        let inner = self.clone();
        let starter = thread::Builder::new()
            .name(format!("token-{}", self.token))
            .spawn(move || inner.run_start());
        if let Err(error) = starter {
            let detail = format!("no thread could be started: {error}");
            state.process = Process::Down(Some(Fault::new(KeysFailure::Device, detail)));
        }
    }

    fn run_start(&self) {
        let started = login::refuse_if_refused(&self.options.refused_file)
            .and_then(|()| Worker::start(&self.program, &self.options));
        let mut state = self.state();
        match started {
            Ok((worker, without_canary)) => {
                tracing::info!(token = %self.token, "the token is open ({worker:?})");
                if let Some(problem) = without_canary {
                    tracing::warn!(token = %self.token, problem, "the token has no canary key and cannot be tested");
                }
                state.problem = None;
                state.process = Process::Up(Arc::new(worker));
            }
            Err(fault) => {
                // What is wrong is said once, however often it is tried again.
                if state.problem.as_ref() != Some(&fault.detail) {
                    tracing::warn!(token = %self.token, problem = fault.detail, "the token cannot be opened");
                    state.problem = Some(fault.detail.clone());
                }
                state.process = Process::Down(Some(fault));
            }
        }
        self.changed.notify_all();
    }

    /// Asks this process no more. Whoever still waits for it goes on waiting; the last of them ends it.
    fn give_up(&self, worker: &Arc<Worker>) {
        let mut state = self.state();
        if let Process::Up(current) = &state.process
            && Arc::ptr_eq(current, worker)
        {
            tracing::warn!(token = %self.token, "the token's process is given up ({worker:?})");
            state.process = Process::Down(None);
            self.changed.notify_all();
        }
    }
}

struct Seat(Arc<Inner>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.state().seated -= 1;
        self.0.changed.notify_all();
    }
}

impl fmt::Debug for Pkcs11Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Token")
            .field("token", &self.0.token)
            .field("module", &self.0.options.module)
            .finish_non_exhaustive()
    }
}

impl Keys for Pkcs11Token {
    fn token(&self) -> &TokenId {
        &self.0.token
    }

    fn fit_for_real_ca(&self) -> bool {
        true
    }

    fn list(&self) -> Result<Vec<KeyInfo>, KeysError> {
        match self.ask(&Order::List)? {
            Answer::Keys(keys) => Ok(keys),
            other => Err(self.unexpected(&other)),
        }
    }

    fn find(&self, name: &str) -> Result<Option<KeyInfo>, KeysError> {
        match self.ask(&Order::Find { name: name.into() })? {
            Answer::Found(found) => Ok(found),
            other => Err(self.unexpected(&other)),
        }
    }

    fn generate(&self, name: &str, key_type: KeyType) -> Result<KeyInfo, KeysError> {
        let name = name.into();
        match self.ask(&Order::Generate { name, key_type })? {
            Answer::Key(key) => Ok(key),
            other => Err(self.unexpected(&other)),
        }
    }

    fn import(&self, name: &str, pkcs8_der: &[u8]) -> Result<KeyInfo, KeysError> {
        let (name, private_key) = (name.into(), Secret(pkcs8_der.to_vec()));
        match self.ask(&Order::Import { name, private_key })? {
            Answer::Key(key) => Ok(key),
            other => Err(self.unexpected(&other)),
        }
    }

    fn sign(&self, name: &str, algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Vec<u8>, KeysError> {
        let order = Order::Sign {
            name: name.into(),
            algorithm,
            message: message.to_vec(),
        };
        match self.ask(&order)? {
            Answer::Signature(signature) => Ok(signature),
            other => Err(self.unexpected(&other)),
        }
    }

    fn canary(&self) -> Result<(), KeysError> {
        let mut nonce = [0; 16];
        rand::fill(&mut nonce).map_err(|_| self.error(Fault::new(KeysFailure::Device, "no randomness")))?;
        let message = crate::canary_message(&self.0.token, nonce).into_bytes();
        match self.ask(&Order::SignCanary {
            message: message.clone(),
        })? {
            Answer::Canary(canary) if canary.verifies(&message) => Ok(()),
            Answer::Canary(_) => Err(self.error(Fault::new(
                KeysFailure::Device,
                "the canary key's signature does not verify",
            ))),
            other => Err(self.unexpected(&other)),
        }
    }

    fn refuses_login(&self) -> bool {
        login::refuse_if_refused(&self.0.options.refused_file).is_err()
    }

    fn destroy(&self, name: &str) -> Result<(), KeysError> {
        match self.ask(&Order::Destroy { name: name.into() })? {
            Answer::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }
}
