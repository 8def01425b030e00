//! The adapter for PostgreSQL: any number of processes on one ledger.
//!
//! What front ends and signers do all day (accept, begin, finish) is gathered into batches (`batch`), and a batch is one statement: one
//! round trip and one commit. Rows are locked in the order of their names; nothing on the way of a request is shared by two writers but
//! the job itself: each connection counts in rows of its own (`quota`, and the tallies in the schema), and readers add them up. What
//! each call does stands in `accept`, `join`, `begin`, `ending`, `revoke` and `registry`; what it reads in `read` and `claim`. A change
//! of the registry waits for what was begun before it (`registry_gate` in the schema).

mod accept;
mod adapter;
mod batch;
mod begin;
mod breaker;
mod claim;
mod column;
mod core;
mod ending;
mod event;
mod fault;
mod join;
mod law;
mod link;
mod options;
mod partition;
mod quota;
mod read;
mod registry;
mod revoke;
mod schema;
mod stand_down;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use domain::id::{Incarnation, Serial};
use tokio::task::AbortHandle;

use self::{
    batch::{Batcher, Gathering},
    core::Core,
    fault::Fault,
    link::{Links, Use},
    partition::Days,
};
use crate::{AcceptError, Accepted, Begin, Finish, Finished, NewJob, StoreError, rules::Turns};

pub use self::options::{Options, Tls};

/// How often opening tries to make the next days' partitions where others hold the locks, and the pause in between.
const OPENING: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// A ledger in a database. Dropping it closes its connections.
pub struct Postgres {
    core: Arc<Core>,
    accepts: Arc<Batcher<NewJob, Result<Accepted, AcceptError>>>,
    begins: Arc<Batcher<(Incarnation, Serial), Result<Begin, StoreError>>>,
    finishes: Arc<Batcher<Finish, Result<Finished, StoreError>>>,
    /// The last look before a signature: whether a job was cancelled. Runs that look at the same time look together.
    looks: Arc<Batcher<Serial, Result<bool, StoreError>>>,
    tasks: Vec<AbortHandle>,
}

impl Postgres {
    /// Connects, brings the schema up to date and makes the partitions of the next days. Any number of processes may do so at the same
    /// time. Inside a tokio runtime.
    ///
    /// [`StoreError::Unavailable`]: the server cannot be reached (yet); try again. [`StoreError::Rejected`]: an option is wrong, or a
    /// newer program has migrated the database.
    pub async fn open(options: Options) -> Result<Self, StoreError> {
        options.check()?;
        let connect = options.connect()?;
        schema::migrate(&connect).await?;
        let links = |r#use, most| {
            let (patience, limit) = (options.patience, options.statement_limit);
            Arc::new(Links::new(connect.clone(), r#use, most, patience, limit))
        };
        let core = Arc::new(Core {
            writes: links(Use::Write, options.writers),
            reads: links(Use::Read, options.readers),
            days: Days::default(),
            turns: Turns::default(),
            #[cfg(test)]
            clock: options.clock.clone(),
        });
        let mut lent = core.writes.lend().await?;
        let now = core.now(&mut lent).await.map_err(Fault::into_error)?;
        // Others may be at it: then theirs are waited for, so that no job of today falls into the default partition.
        let mut patience = OPENING;
        while let Err(fault) = core.days.make(&mut lent, now).await {
            if patience == 0 || !fault.is_passing() {
                return Err(fault.into_error());
            }
            patience -= 1;
            tokio::time::sleep(PAUSE).await;
        }
        drop(lent);
        let mut store = Self {
            accepts: Arc::new(batcher(&options)),
            begins: Arc::new(batcher(&options)),
            finishes: Arc::new(batcher(&options)),
            looks: Arc::new(batcher(&options)),
            core,
            tasks: Vec::new(),
        };
        store.spawn(Gathering {
            gap: options.commit_gap,
            rows: options.batch_rows,
        });
        Ok(store)
    }

    fn spawn(&mut self, gathering: Gathering) {
        let core = Arc::clone(&self.core);
        let accept = move |mut lent, jobs: Vec<NewJob>| {
            let core = Arc::clone(&core);
            async move { core.accept(&mut lent, &jobs).await }
        };
        let core = Arc::clone(&self.core);
        let begin = move |mut lent, rows: Vec<(Incarnation, Serial)>| {
            let core = Arc::clone(&core);
            async move { core.begin(&mut lent, &rows).await }
        };
        let core = Arc::clone(&self.core);
        let finish = move |mut lent, finishes: Vec<Finish>| {
            let core = Arc::clone(&core);
            async move { core.finish(&mut lent, &finishes).await }
        };
        let core = Arc::clone(&self.core);
        let look = move |mut lent, jobs: Vec<Serial>| {
            let core = Arc::clone(&core);
            async move { core.are_cancelled(&mut lent, &jobs).await }
        };
        let links = || Arc::clone(&self.core.writes);
        self.tasks = vec![
            self.accepts.run(links(), gathering, accept),
            self.begins.run(links(), gathering, begin),
            self.finishes.run(links(), gathering, finish),
            self.looks.run(Arc::clone(&self.core.reads), gathering, look),
        ];
    }
}

fn batcher<I: Send + 'static, A: Send + 'static>(options: &Options) -> Batcher<I, A> {
    Batcher::new(options.interactive_calls, options.bulk_calls, options.patience)
}

impl Drop for Postgres {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.accepts.close();
        self.begins.close();
        self.finishes.close();
        self.looks.close();
        self.core.writes.close();
        self.core.reads.close();
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}
