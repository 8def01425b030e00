//! Group commit in front of one kind of statement: calls that come while the last commit is less than a gap old share the next one.
//!
//! Several commits may be under way, each on a connection of its own. When all connections are busy, what comes meanwhile makes the
//! next batch larger. When the server cannot be reached, what waits is answered at once.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    task::AbortHandle,
};

use super::link::{Lent, Links};
use crate::StoreError;

/// How long calls that can wait may be passed over before one of them goes along whatever else there is.
const PASSED_OVER: Duration = Duration::from_millis(50);

/// A bounded queue of calls, each with rows that are answered one by one.
#[derive(Debug)]
pub(super) struct Batcher<I, A> {
    state: Mutex<State<I, A>>,
    wake: Notify,
    urgent: Arc<Semaphore>,
    patient: Arc<Semaphore>,
    patience: Duration,
}

#[derive(Debug)]
struct State<I, A> {
    urgent: VecDeque<Call<I, A>>,
    patient: VecDeque<Call<I, A>>,
}

#[derive(Debug)]
struct Call<I, A> {
    rows: Vec<I>,
    since: Instant,
    reply: oneshot::Sender<Result<Vec<A>, StoreError>>,
    place: OwnedSemaphorePermit,
}

/// How calls are gathered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathering {
    /// A commit begins at least this long after the one before it began.
    pub(super) gap: Duration,
    /// Rows that one commit takes, more or less.
    pub(super) rows: usize,
}

impl<I: Send + 'static, A: Send + 'static> Batcher<I, A> {
    /// A queue with so many places for urgent calls, and for others.
    pub(super) fn new(urgent: usize, patient: usize, patience: Duration) -> Self {
        Self {
            state: Mutex::new(State {
                urgent: VecDeque::new(),
                patient: VecDeque::new(),
            }),
            wake: Notify::new(),
            urgent: Arc::new(Semaphore::new(urgent)),
            patient: Arc::new(Semaphore::new(patient)),
            patience,
        }
    }

    /// Has rows written with the next commit, and waits for the answers: one for each, in their order.
    pub(super) async fn call(&self, urgent: bool, rows: Vec<I>) -> Result<Vec<A>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let places = if urgent { &self.urgent } else { &self.patient };
        let place = tokio::time::timeout(self.patience, Arc::clone(places).acquire_owned()).await;
        let place = place
            .map_err(|_| StoreError::Unavailable(format!("no place in the queue within {:?}", self.patience)))?
            .map_err(|_| closed())?;
        let (reply, answer) = oneshot::channel();
        let call = Call {
            rows,
            since: Instant::now(),
            reply,
            place,
        };
        {
            let mut state = self.lock();
            let queue = if urgent { &mut state.urgent } else { &mut state.patient };
            queue.push_back(call);
        }
        self.wake.notify_one();
        answer
            .await
            .map_err(|_| StoreError::OutcomeUnknown("the store was closed meanwhile".into()))?
    }

    /// Gathers and commits until it is aborted. `commit` answers each row.
    pub(super) fn run<F, C>(self: &Arc<Self>, links: Arc<Links>, gathering: Gathering, commit: C) -> AbortHandle
    where
        F: Future<Output = Vec<A>> + Send + 'static,
        C: Fn(Lent, Vec<I>) -> F + Send + Sync + 'static,
    {
        let batcher = Arc::clone(self);
        let commit = Arc::new(commit);
        let run = async move {
            let mut began: Option<Instant> = None;
            loop {
                batcher.waiting().await;
                if let Some(rest) = began.and_then(|began| gathering.gap.checked_sub(began.elapsed())) {
                    tokio::time::sleep(rest).await;
                }
                let lent = links.lend().await;
                began = Some(Instant::now());
                let calls = batcher.take(gathering.rows);
                match lent {
                    Ok(lent) if !calls.is_empty() => {
                        let commit = Arc::clone(&commit);
                        tokio::spawn(async move { answer(calls, |rows| commit(lent, rows)).await });
                    }
                    Ok(_) => {}
                    Err(error) => {
                        for call in calls {
                            // Nobody may wait any more; then nobody is told.
                            let _ = call.reply.send(Err(error.clone()));
                        }
                    }
                }
            }
        };
        tokio::spawn(run).abort_handle()
    }

    /// Takes no more calls, and lets go of those that wait.
    pub(super) fn close(&self) {
        self.urgent.close();
        self.patient.close();
        let mut state = self.lock();
        for call in std::mem::take(&mut state.urgent)
            .into_iter()
            .chain(std::mem::take(&mut state.patient))
        {
            let _ = call.reply.send(Err(closed()));
        }
    }

    async fn waiting(&self) {
        loop {
            let notified = self.wake.notified();
            {
                let state = self.lock();
                if !state.urgent.is_empty() || !state.patient.is_empty() {
                    return;
                }
            }
            notified.await;
        }
    }

    /// Calls with so many rows, urgent ones first; at least one call, and one that can wait where it has been passed over for long.
    fn take(&self, rows: usize) -> Vec<Call<I, A>> {
        let mut state = self.lock();
        let State { urgent, patient } = &mut *state;
        let overdue = patient.front().is_some_and(|call| call.since.elapsed() >= PASSED_OVER);
        let mut taken = Vec::new();
        let mut room = rows;
        fill(urgent, &mut taken, &mut room);
        if overdue && let Some(call) = patient.pop_front() {
            room = room.saturating_sub(call.rows.len());
            taken.push(call);
        }
        if room > 0 {
            fill(patient, &mut taken, &mut room);
        }
        taken.retain(|call| !call.reply.is_closed());
        taken
    }

    fn lock(&self) -> MutexGuard<'_, State<I, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fill<I, A>(queue: &mut VecDeque<Call<I, A>>, taken: &mut Vec<Call<I, A>>, room: &mut usize) {
    while let Some(call) = queue.front()
        && (taken.is_empty() || call.rows.len() <= *room)
        && let Some(call) = queue.pop_front()
    {
        *room = room.saturating_sub(call.rows.len());
        taken.push(call);
    }
}

/// Commits the rows of all calls together and gives each call its answers.
async fn answer<I, A, F>(calls: Vec<Call<I, A>>, commit: impl FnOnce(Vec<I>) -> F)
where
    F: Future<Output = Vec<A>>,
{
    let mut rows = Vec::new();
    let mut replies = Vec::new();
    for call in calls {
        replies.push((call.rows.len(), call.reply, call.place));
        rows.extend(call.rows);
    }
    let mut answers = commit(rows).await.into_iter();
    for (number, reply, place) in replies {
        let mine: Vec<A> = answers.by_ref().take(number).collect();
        let _ = reply.send(Ok(mine));
        drop(place);
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}
