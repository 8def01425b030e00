//! The loop: something happens, the dispatcher decides, its effects are performed, in order.

mod lanes;
mod messages;
mod probe;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use broker::{Broker, Inbox, Incoming};
use domain::{
    bytes::Digest,
    dispatch::{Begun as BegunJob, Dispatcher, Effect, Event, Hint, NotBegun, Notice, Recorded, Status},
    failure::{Failure, KeysFailure},
    id::{Incarnation, IssuerId, Serial},
    lane::Lane,
    reconcile,
    time::Clock,
};
use runtime::{
    follow::Applied,
    health::{Condition, Health},
    shutdown::Shutdown,
    trace,
};
use store::{Begin, Begun, Claim, Deferral, Finish, Refusal, Store, StoreError};
use tokio::{sync::mpsc, time::timeout};
use tracing::Span;

use crate::{
    aside::Unbelievable,
    heartbeat::Said,
    issue::{Issue, Task},
    keyring::Keyring,
    metrics::Metrics,
    news::{News, Report},
    pool::Pool,
    record::{Ending, precise},
    sign::Signed,
    tally::Tally,
};

/// How long the ledger may take for a question of the worker.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the broker may take for a word.
const BROKER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long after a broker's inbox was closed another is opened.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// How often what is looked at now and then is looked at, however busy the worker is.
const TICK_PERIOD: Duration = Duration::from_millis(100);

/// The worker of a signer.
pub struct Worker {
    /// Decides.
    pub dispatcher: Dispatcher,
    /// The ledger.
    pub store: Arc<dyn Store>,
    /// Transport.
    pub broker: Arc<dyn Broker>,
    /// Who this is.
    pub incarnation: Incarnation,
    /// The registry as it is applied.
    pub applied: Arc<ArcSwap<Applied>>,
    /// Keys that are here.
    pub keyring: Arc<ArcSwap<Keyring>>,
    /// Store time.
    pub clock: Arc<dyn Clock>,
    /// The part of a run that signs.
    pub issue: Arc<Issue>,
    /// Where it happens.
    pub pool: Pool,
    /// Where news come from.
    pub inlet: mpsc::Receiver<News>,
    /// Where tasks of the worker send theirs.
    pub news: mpsc::Sender<News>,
    /// Where ends of jobs are recorded.
    pub endings: mpsc::Sender<Ending>,
    /// Where reports are written down.
    pub reports: mpsc::Sender<Report>,
    /// Where messages are set aside that cannot be believed.
    pub aside: mpsc::Sender<Unbelievable>,
    /// Configuration.
    pub config: runtime::config::Signer,
    /// What others are told is in flight.
    pub in_flight: Arc<AtomicU64>,
    /// What is signed in each lane.
    pub signed: Arc<Tally>,
    /// What others are told of breakers, tokens and this signer.
    pub said: Arc<ArcSwap<Said>>,
    /// Measurements.
    pub metrics: Metrics,
    /// Conditions of lanes.
    pub health: Health,
    /// When to stop.
    pub shutdown: Shutdown,
    /// What happens here and now.
    pub state: State,
}

/// What the worker holds between two events.
#[derive(Default)]
pub struct State {
    inbox: Option<Box<dyn Inbox>>,
    /// How many inboxes there were: a delivery can only be settled in the one that brought it.
    inboxes: u64,
    /// Deliveries of this inbox that could not even be set aside for now.
    put_off: Vec<u64>,
    lanes: BTreeSet<Lane>,
    reopen_at: Option<Instant>,
    ticked: Option<Instant>,
    begun: HashMap<(Serial, u32), Begun>,
    signed: HashMap<(Serial, u32), Signed>,
    /// What is remembered of begun jobs until their end is recorded.
    facts: HashMap<(Serial, u32), Facts>,
    runs: HashMap<u64, Going>,
    contexts: messages::Contexts,
    conditions: BTreeMap<Lane, Condition>,
    /// Issuers whose lanes say that their keys fail.
    shut: BTreeSet<IssuerId>,
    over: Option<Result<(), String>>,
}

struct Facts {
    lane: Lane,
    intent: Digest,
    /// The stage of the job's trace that is this signer's.
    span: Span,
}

/// A run on a thread.
struct Going {
    left: HashSet<(Serial, u32)>,
    progress: Instant,
}

/// What the broker is told.
#[derive(Debug, Clone, Copy)]
enum Word<'a> {
    Settle(&'a [u64]),
    GiveBack(&'a [u64]),
    Pause(&'a Lane),
    Resume(&'a Lane),
}

enum Woken {
    Incoming(Option<Incoming>),
    News(Option<News>),
    Time,
    Stop,
}

impl Worker {
    /// Works until it has drained, or a fault of the program stops it.
    pub async fn run(mut self) -> Result<(), String> {
        self.keys_changed().await;
        let mut stopping = false;
        loop {
            let deadline = self.dispatcher.deadline();
            let pause = deadline.since(self.clock.now()).max(Duration::from_millis(1));
            let soft = self.shutdown.soft().clone();
            let woken = tokio::select! {
                biased;
                () = soft.cancelled(), if !stopping => Woken::Stop,
                news = self.inlet.recv() => Woken::News(news),
                incoming = next(&mut self.state.inbox) => Woken::Incoming(incoming),
                () = tokio::time::sleep(pause) => Woken::Time,
            };
            match woken {
                Woken::Stop => {
                    stopping = true;
                    self.happen(Event::Drain).await;
                }
                Woken::News(Some(news)) => self.hear(news).await,
                Woken::News(None) => return Err("nobody can tell the worker anything any more".to_owned()),
                Woken::Incoming(Some(incoming)) => self.receive(incoming).await,
                Woken::Incoming(None) => {
                    self.state.inbox = None;
                    self.state.reopen_at = Some(Instant::now() + REOPEN_PAUSE);
                    self.happen(Event::InboxOpened).await;
                }
                Woken::Time => self.tick().await,
            }
            if self.state.ticked.is_none_or(|ticked| ticked.elapsed() >= TICK_PERIOD) {
                self.tick().await;
            }
            if let Some(over) = self.state.over.take() {
                return over;
            }
        }
    }

    /// Lets the dispatcher decide, and does it.
    async fn happen(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.dispatcher.handle(event, self.clock.now(), &mut effects);
        for effect in effects {
            self.perform(effect).await;
        }
        let Status {
            waiting,
            in_flight,
            lanes,
            beginning,
            ..
        } = self.dispatcher.status();
        self.in_flight.store(in_flight as u64, Ordering::Relaxed);
        self.metrics.in_flight.set(count(in_flight));
        self.metrics.waiting.set(count(waiting));
        self.metrics.lanes.set(count(lanes));
        self.metrics.beginning.set(i64::from(beginning));
    }

    async fn tick(&mut self) {
        self.state.ticked = Some(Instant::now());
        if self.state.reopen_at.is_some_and(|at| at <= Instant::now()) {
            self.open_inbox().await;
        }
        for failed in self.hung() {
            self.happen(failed).await;
        }
        self.give_back_put_off().await;
        self.happen(Event::Tick).await;
        self.show_health();
    }

    /// Jobs of runs that have made no progress for longer than a key operation may take: given up, so that others may try. Their thread
    /// stays occupied until it comes back.
    fn hung(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for going in self.state.runs.values_mut() {
            if going.progress.elapsed() > self.config.operation_limit {
                for (job, turn) in going.left.drain() {
                    let result = Err(Failure::Keys(KeysFailure::Hang));
                    let took = self.config.operation_limit;
                    events.push(Event::Ran {
                        job,
                        turn,
                        result,
                        took,
                    });
                }
            }
        }
        events
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Begun(asked, Ok(answers)) => {
                let event = self.begun(&asked, answers);
                self.happen(event).await;
            }
            News::Begun(asked, Err(error)) => {
                tracing::warn!(%error, jobs = asked.len(), "jobs could not be begun: {error}");
                self.happen(Event::BeginFailed(asked)).await;
            }
            News::Claimable(asked, Ok(found)) => {
                let jobs = found
                    .into_iter()
                    .map(|found| {
                        (
                            found.lane,
                            Hint {
                                job: found.job,
                                account: found.account,
                            },
                        )
                    })
                    .collect();
                self.happen(Event::Claimable { asked, jobs }).await;
            }
            News::Claimable(_, Err(error)) => {
                tracing::warn!(%error, "the ledger could not be asked for waiting jobs: {error}");
                self.happen(Event::ClaimFailed).await;
            }
            News::TakenOver(Ok(taken)) => {
                for (job, lane) in taken.poisoned {
                    self.metrics.poisoned.inc();
                    tracing::error!(%job, %lane, "job {job} is parked: it lost its owner three times while it ran alone");
                }
                let begun = taken.begun.into_iter().next().map(|begun| self.keep(begun));
                self.happen(Event::TakenOver(begun)).await;
            }
            News::TakenOver(Err(error)) => {
                tracing::warn!(%error, "the ledger could not be asked for lost jobs: {error}");
                self.happen(Event::TakeOverFailed).await;
            }
            News::Ran { run, job, turn, result } => self.ran(run, job, turn, result).await,
            News::RunEnded(run) => {
                self.state.runs.remove(&run);
                self.happen(Event::RunEnded(run)).await;
            }
            News::Recorded(told) => {
                for (job, turn, how) in told {
                    if how == Recorded::Done {
                        self.state.facts.remove(&(job, turn));
                    }
                    self.happen(Event::Recorded { job, turn, how }).await;
                }
            }
            News::Probed { probe, result, took } => self.happen(Event::Probed { probe, result, took }).await,
            News::Forced(forced) => self.happen(Event::Forced(forced)).await,
            News::MayLogIn(token) => self.happen(Event::TokenUnlocked(token)).await,
            News::PermitGranted => self.happen(Event::PermitGranted).await,
            News::PermitRefused => self.happen(Event::PermitRefused).await,
            News::Hindered(hindrance) => self.happen(Event::Hindered(hindrance)).await,
            News::Freed(hindrance) => self.happen(Event::Freed(hindrance)).await,
            News::Keys => self.keys_changed().await,
            News::SetAside { inbox, tag } => self.is_set_aside(inbox, tag).await,
        }
    }

    /// Keeps the body of a begun job until it runs, and says what the dispatcher needs to know of it.
    fn keep(&mut self, begun: Begun) -> BegunJob {
        let job = BegunJob {
            job: begun.job,
            lane: begun.lane.clone(),
            account: begun.account.clone(),
            turn: begun.turn,
        };
        let span = runtime::stage!(parent: None, "issue", job = %begun.job, lane = %begun.lane, turn = begun.turn);
        if let Some(context) = self.state.contexts.take(begun.job) {
            trace::continues(&span, &context);
        }
        let facts = Facts {
            lane: begun.lane.clone(),
            intent: begun.intent,
            span,
        };
        self.state.facts.insert((begun.job, begun.turn), facts);
        self.state.begun.insert((begun.job, begun.turn), begun);
        job
    }

    fn begun(&mut self, asked: &[Serial], answers: Vec<Begin>) -> Event {
        let (mut begun, mut not) = (Vec::new(), Vec::new());
        for answer in answers {
            match answer {
                Begin::Begun(job) => begun.push(self.keep(*job)),
                Begin::Not(job, why) => {
                    if why == store::NotBegun::Damaged {
                        self.metrics.altered.inc();
                        tracing::error!(%job, "job {job} is set aside: its rows cannot be read");
                    }
                    not.push((job, not_begun(why)));
                }
            }
        }
        let answered: HashSet<Serial> = begun.iter().map(|b| b.job).chain(not.iter().map(|n| n.0)).collect();
        for job in asked.iter().filter(|job| !answered.contains(job)) {
            tracing::error!(%job, "the store gave no answer for job {job}");
            not.push((*job, NotBegun::NotWanted));
        }
        Event::Begun { begun, not }
    }

    async fn ran(&mut self, run: u64, job: Serial, turn: u32, result: Result<Signed, Failure>) {
        let Some(going) = self.state.runs.get_mut(&run) else {
            return;
        };
        going.progress = Instant::now();
        if !going.left.remove(&(job, turn)) {
            tracing::warn!(%job, turn, "job {job} had come to its end before: dropped");
            return;
        }
        let took = result.as_ref().map_or(Duration::ZERO, |signed| signed.took);
        let result = result.map(|signed| {
            self.state.signed.insert((job, turn), signed);
        });
        self.happen(Event::Ran {
            job,
            turn,
            result,
            took,
        })
        .await;
    }

    async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Settle(tags) => self.tell_broker(Word::Settle(&tags)).await,
            Effect::GiveBack(tags) => self.tell_broker(Word::GiveBack(&tags)).await,
            Effect::PauseLane(lane) => self.tell_broker(Word::Pause(&lane)).await,
            Effect::ResumeLane(lane) => self.tell_broker(Word::Resume(&lane)).await,
            Effect::Begin(jobs) => self.begin(jobs),
            Effect::Claim(claims) => self.claim(claims),
            Effect::TakeOver(lanes) => self.take_over(lanes),
            Effect::Run { run, lane, jobs } => self.start(run, lane, &jobs),
            Effect::Probe { probe, token, key } => self.probe(probe, token, key),
            Effect::AskPermit => self.ask_permit(),
            Effect::ReturnPermit => self.return_permit(),
            Effect::Alert(alert) => Self::alert(&alert),
            Effect::Finish { job, turn } => self.finish(job, turn),
            Effect::Refuse { job, turn, id, detail } => {
                let id = id.to_owned();
                let turn = (turn > 0).then_some(turn);
                self.end(Ending::Refuse(Refusal { job, turn, id, detail }));
            }
            Effect::Defer { job, turn, reason } => {
                self.end(Ending::Defer(Deferral { job, turn, reason }));
            }
            Effect::Note {
                job,
                lane,
                kind,
                detail,
            } => self.note(job, lane, kind, detail),
            Effect::Drained => self.state.over = Some(Ok(())),
            Effect::Stop(fault) => {
                self.metrics.faults.inc();
                tracing::error!(
                    fault,
                    page = true,
                    "a fault of the program: this signer signs nothing more: {fault}"
                );
                self.state.over = Some(Err(fault));
            }
        }
    }

    /// Nothing that the broker fails to hear is lost: what it does not settle comes again, what it does not bring is claimed.
    async fn tell_broker(&mut self, word: Word<'_>) {
        let Some(inbox) = &mut self.state.inbox else { return };
        let heard = async {
            match word {
                Word::Settle(tags) => inbox.settle(tags).await,
                Word::GiveBack(tags) => inbox.give_back(tags).await,
                Word::Pause(lane) => inbox.pause(lane).await,
                Word::Resume(lane) => inbox.resume(lane).await,
            }
        };
        match timeout(BROKER_TIMEOUT, heard).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, ?word, "the broker did not do as it was told: {error}"),
            Err(_) => tracing::warn!(?word, "the broker did not answer in time"),
        }
    }

    fn begin(&self, jobs: Vec<Serial>) {
        self.metrics.begin_jobs.observe(precise(jobs.len()));
        let (store, owner, news) = (self.store.clone(), self.incarnation.clone(), self.news.clone());
        tokio::spawn(async move {
            let begun = within(store.begin(&owner, &jobs)).await;
            send(&news, News::Begun(jobs, begun)).await;
        });
    }

    fn claim(&self, asked: Vec<reconcile::Claim>) {
        let (store, news) = (self.store.clone(), self.news.clone());
        tokio::spawn(async move {
            let claims: Vec<Claim> = asked.iter().map(claim).collect();
            let found = within(store.claimable(&claims)).await;
            send(&news, News::Claimable(asked, found)).await;
        });
    }

    fn take_over(&self, lanes: Vec<Lane>) {
        let (store, owner, news) = (self.store.clone(), self.incarnation.clone(), self.news.clone());
        let limit = self.config.operation_limit;
        tokio::spawn(async move {
            let taken = within(store.take_over(&owner, &lanes, limit, 1)).await;
            send(&news, News::TakenOver(taken)).await;
        });
    }

    fn start(&mut self, run: u64, lane: Lane, jobs: &[(Serial, u32)]) {
        let going = Going {
            left: jobs.iter().copied().collect(),
            progress: Instant::now(),
        };
        self.state.runs.insert(run, going);
        let tasks = jobs.iter().filter_map(|job| {
            let begun = self.state.begun.remove(job)?;
            let span = self
                .state
                .facts
                .get(job)
                .map_or_else(Span::none, |facts| facts.span.clone());
            Some(Task { begun, span })
        });
        let tasks: Vec<Task> = tasks.collect();
        let issue = self.issue.clone();
        if let Err(busy) = self.pool.give(move || issue.run(run, &lane, &tasks)) {
            // The dispatcher counts the threads: this cannot be, and would only cost time if it were.
            tracing::error!(run, "{busy}");
        }
    }

    fn finish(&mut self, job: Serial, turn: u32) {
        let signed = self.state.signed.remove(&(job, turn));
        let (Some(signed), Some(facts)) = (signed, self.state.facts.get(&(job, turn))) else {
            tracing::error!(%job, turn, "job {job} has no signature to record");
            return;
        };
        let finish = Finish {
            job,
            intent: facts.intent,
            signature: signed.signature,
            node: self.incarnation.node.clone(),
            turn,
        };
        self.signed.count(&facts.lane);
        let span = runtime::stage!(parent: &facts.span, "record");
        self.end(Ending::Finish(facts.lane.issuer.clone(), finish, span));
    }

    /// There is room for every job in flight, so that this never waits.
    fn end(&mut self, ending: Ending) {
        if self.endings.try_send(ending).is_err() {
            self.state.over = Some(Err("the recorder has ended".to_owned()));
        }
    }

    fn note(&self, job: Serial, lane: Lane, notice: Notice, detail: String) {
        let kind = match notice {
            Notice::TakenOver => {
                self.metrics.taken_over.inc();
                tracing::warn!(%job, %lane, detail, "job {job} is taken over from a lost owner");
                return;
            }
            Notice::Altered => {
                self.metrics.altered.inc();
                "altered"
            }
            Notice::Panicked => "panicked",
        };
        let report = Report {
            job,
            lane,
            kind,
            detail,
            evidence: None,
        };
        if let Err(unsent) = self.reports.try_send(report) {
            tracing::error!(%job, kind, %unsent, "too much to report: this is not written down");
        }
    }
}

async fn next(inbox: &mut Option<Box<dyn Inbox>>) -> Option<Incoming> {
    match inbox {
        Some(inbox) => inbox.next().await,
        None => std::future::pending().await,
    }
}

async fn within<T>(question: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || StoreError::OutcomeUnknown(format!("no answer within {STORE_TIMEOUT:?}"));
    timeout(STORE_TIMEOUT, question).await.map_err(|_| late())?
}

async fn send(news: &mpsc::Sender<News>, what: News) {
    if news.send(what).await.is_err() {
        tracing::debug!("the signer has ended before an answer of the ledger");
    }
}

fn claim(claim: &reconcile::Claim) -> Claim {
    Claim {
        lane: claim.lane.clone(),
        accepted_before: claim.accepted_before,
        limit: claim.limit,
    }
}

fn not_begun(why: store::NotBegun) -> NotBegun {
    use store::NotBegun as Why;
    match why {
        Why::IssuerDisabled => NotBegun::IssuerDisabled,
        Why::IssuerDestroyed => NotBegun::IssuerDestroyed,
        Why::Unknown | Why::Elsewhere | Why::Ended(_) | Why::Parked | Why::Paused | Why::Late | Why::Damaged => {
            NotBegun::NotWanted
        }
    }
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
