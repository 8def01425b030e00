//! Connections: their settings and time limits, and the few that are kept.
//!
//! A connection that was in the middle of something when its time ran out, its caller left or the link broke is closed, never used
//! again: nothing here waits for a server that does not answer. (That is why `sqlx`'s own pool is not used: it asks a returned
//! connection whether it lives, without a limit, and a frozen server would keep every place.)

use std::{
    future::Future,
    hash::{BuildHasher, Hasher, RandomState},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, Executor, Row,
    postgres::{PgArguments, PgConnectOptions, PgConnection, PgRow},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::fault::Fault;
use crate::StoreError;

/// A statement with its arguments.
pub(super) type Query = sqlx::query::Query<'static, sqlx::Postgres, PgArguments>;

/// A connection that has been idle for longer is asked whether it lives before it is used.
const IDLE: Duration = Duration::from_millis(500);
/// How long that may take, and an attempt to connect.
const CONNECT: Duration = Duration::from_secs(2);
/// After a failed attempt to connect nobody tries again for so long, with jitter; doubled with each further one.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The first of the two numbers of a writer's advisory lock.
const WRITERS: i32 = 0x4255_4c4b;
/// As many connections may write at the same time, over all processes.
const MOST_WRITERS: i32 = 1_000;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Writing: it takes a number of its own, under which it counts.
    Write,
    /// Reading only.
    Read,
}

/// Connections of one use, at most so many.
#[derive(Debug)]
pub(super) struct Links {
    options: PgConnectOptions,
    r#use: Use,
    places: Arc<Semaphore>,
    idle: Mutex<Vec<Link>>,
    down: Mutex<Option<Down>>,
    patience: Duration,
    limit: Duration,
}

#[derive(Debug)]
struct Link {
    connection: PgConnection,
    writer: i32,
    used: Instant,
}

/// The server is not to be reached for now.
#[derive(Debug, Clone)]
struct Down {
    until: Instant,
    pause: Duration,
    error: StoreError,
}

impl Links {
    /// `patience`: how long a caller waits for a free connection. `limit`: how long it waits for the answer to a statement; the
    /// server gives up earlier by itself.
    pub(super) fn new(options: PgConnectOptions, r#use: Use, most: usize, patience: Duration, limit: Duration) -> Self {
        Self {
            options: options.options(settings(r#use, limit)),
            r#use,
            places: Arc::new(Semaphore::new(most)),
            idle: Mutex::default(),
            down: Mutex::default(),
            patience,
            limit: limit + Duration::from_secs(1),
        }
    }

    /// A connection. [`StoreError::Unavailable`] where there is none in time.
    pub(super) async fn lend(self: &Arc<Self>) -> Result<Lent, StoreError> {
        let place = timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await;
        let place = place
            .map_err(|_| StoreError::Unavailable(format!("no connection was free within {:?}", self.patience)))?
            .map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
        loop {
            let idle = lock(&self.idle).pop();
            let Some(mut link) = idle else { break };
            if link.used.elapsed() < IDLE || matches!(timeout(CONNECT, link.connection.ping()).await, Ok(Ok(()))) {
                return Ok(self.lent(link, place));
            }
        }
        let link = self.connect().await?;
        Ok(self.lent(link, place))
    }

    fn lent(self: &Arc<Self>, link: Link, place: OwnedSemaphorePermit) -> Lent {
        Lent {
            link: Some(link),
            sound: true,
            links: Arc::clone(self),
            _place: place,
        }
    }

    async fn connect(&self) -> Result<Link, StoreError> {
        let down = lock(&self.down).clone();
        if let Some(down) = down.as_ref().filter(|down| Instant::now() < down.until) {
            return Err(down.error.clone());
        }
        let connected = timeout(CONNECT, self.open()).await;
        let text = match connected {
            Ok(Ok(link)) => {
                *lock(&self.down) = None;
                return Ok(link);
            }
            Ok(Err(fault)) => fault.into_error().to_string(),
            Err(_) => format!("the server did not answer within {CONNECT:?}"),
        };
        let host = self.options.get_host();
        let error = StoreError::Unavailable(format!("PostgreSQL at {host}:{}: {text}", self.options.get_port()));
        let pause = down.map_or(PAUSE, |down| (down.pause * 2).min(LONGEST_PAUSE));
        if pause == PAUSE {
            tracing::warn!(%error, "the store cannot be reached");
        }
        *lock(&self.down) = Some(Down {
            until: Instant::now() + pause.mul_f64(0.5 + jitter()),
            pause,
            error: error.clone(),
        });
        Err(error)
    }

    async fn open(&self) -> Result<Link, Fault> {
        let mut connection = dial(self.options.clone()).await?;
        let mut writer = 0;
        if self.r#use == Use::Write {
            let number = sqlx::query(
                "SELECT number FROM generate_series(1, $2) AS number WHERE pg_try_advisory_lock($1, number) LIMIT 1",
            );
            let row = connection
                .fetch_optional(number.bind(WRITERS).bind(MOST_WRITERS))
                .await?;
            let full = || Fault::Store(StoreError::Unavailable("too many connections write".into()));
            writer = row.ok_or_else(full)?.try_get(0)?;
        }
        Ok(Link {
            connection,
            writer,
            used: Instant::now(),
        })
    }
}

/// Connects. (Boxed with everything it needs: what borrows is not known to be `Send` everywhere.)
pub(super) fn dial(
    options: PgConnectOptions,
) -> Pin<Box<dyn Future<Output = Result<PgConnection, sqlx::Error>> + Send>> {
    Box::pin(async move { options.connect().await })
}

/// What every connection of a use has. A setting of the server or the role is not relied on.
fn settings(r#use: Use, limit: Duration) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("statement_timeout", limit.as_millis().to_string()),
        ("lock_timeout", (limit / 4).as_millis().to_string()),
        (
            "idle_in_transaction_session_timeout",
            (limit / 2).as_millis().to_string(),
        ),
        ("tcp_user_timeout", "10000".into()),
        ("tcp_keepalives_idle", "10".into()),
        ("jit", "off".into()),
        ("timezone", "UTC".into()),
        // A table that was small when a statement was planned may be large when it is run: only ways that stay cheap are taken.
        ("enable_seqscan", "off".into()),
        ("enable_bitmapscan", "off".into()),
        // Planning one of the long statements costs as much as running it.
        ("plan_cache_mode", "force_generic_plan".into()),
    ];
    match r#use {
        Use::Write => settings.extend([
            ("synchronous_commit", "on".to_owned()),
            ("enable_hashjoin", "off".into()),
            ("enable_mergejoin", "off".into()),
        ]),
        Use::Read => settings.push(("default_transaction_read_only", "on".into())),
    }
    settings
}

/// A number from 0 to 1 that differs from process to process.
fn jitter() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 40;
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    let share = bits as f64 / f64::from(1 << 24);
    share
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection in use. It goes back when it is dropped, or is closed if it was in the middle of something.
#[derive(Debug)]
pub(super) struct Lent {
    link: Option<Link>,
    sound: bool,
    links: Arc<Links>,
    _place: OwnedSemaphorePermit,
}

impl Lent {
    /// The number under which this connection counts.
    pub(super) fn writer(&self) -> i32 {
        self.link.as_ref().map_or(0, |link| link.writer)
    }

    /// Runs a statement: one round trip, and outside a transaction one commit.
    pub(super) async fn rows(&mut self, query: Query) -> Result<Vec<PgRow>, Fault> {
        let limit = self.links.limit;
        let link = self.sound_link()?;
        let answer = timeout(limit, link.connection.fetch_all(query)).await;
        self.settle(answer, limit)
    }

    /// Runs statements without arguments.
    pub(super) async fn script(&mut self, sql: sqlx::AssertSqlSafe<String>) -> Result<(), Fault> {
        let limit = self.links.limit;
        let link = self.sound_link()?;
        let answer = timeout(limit, link.connection.execute(sqlx::raw_sql(sql))).await;
        self.settle(answer, limit).map(drop)
    }

    /// Begins a transaction. Unless it is committed or rolled back, the connection is closed with it.
    pub(super) async fn begin(&mut self) -> Result<Transaction<'_>, Fault> {
        self.script(sqlx::AssertSqlSafe("BEGIN".to_owned())).await?;
        self.sound = false;
        Ok(Transaction { lent: self })
    }

    /// The link, marked as in the middle of something.
    fn sound_link(&mut self) -> Result<&mut Link, Fault> {
        if !self.sound {
            return Err(Fault::Lost("the connection is closed".into()));
        }
        self.sound = false;
        self.link
            .as_mut()
            .ok_or_else(|| Fault::Lost("the connection is gone".into()))
    }

    fn settle<T>(
        &mut self,
        answer: Result<Result<T, sqlx::Error>, tokio::time::error::Elapsed>,
        limit: Duration,
    ) -> Result<T, Fault> {
        let answer = match answer {
            Ok(answer) => answer.map_err(Fault::from),
            Err(_) => Err(Fault::Lost(format!("the server did not answer within {limit:?}"))),
        };
        self.sound = !matches!(&answer, Err(fault) if fault.is_lost());
        answer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(mut link) = self.link.take()
            && self.sound
            && !self.links.places.is_closed()
        {
            link.used = Instant::now();
            lock(&self.links.idle).push(link);
        }
    }
}

/// A transaction of several statements.
#[derive(Debug)]
pub(super) struct Transaction<'l> {
    lent: &'l mut Lent,
}

impl Transaction<'_> {
    /// The number under which this connection counts.
    pub(super) fn writer(&self) -> i32 {
        self.lent.writer()
    }

    /// Runs a statement.
    pub(super) async fn rows(&mut self, query: Query) -> Result<Vec<PgRow>, Fault> {
        self.lent.sound = true;
        let rows = self.lent.rows(query).await;
        self.lent.sound = false;
        rows
    }

    /// Commits.
    pub(super) async fn commit(self) -> Result<(), Fault> {
        self.end("COMMIT").await
    }

    /// Takes everything back.
    pub(super) async fn roll_back(self) -> Result<(), Fault> {
        self.end("ROLLBACK").await
    }

    async fn end(self, word: &str) -> Result<(), Fault> {
        self.lent.sound = true;
        self.lent.script(sqlx::AssertSqlSafe(word.to_owned())).await
    }
}

/// Closing the places closes the store: nobody gets another connection.
impl Links {
    pub(super) fn close(&self) {
        self.places.close();
        lock(&self.idle).clear();
    }
}
