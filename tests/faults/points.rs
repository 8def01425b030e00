//! Signers that are killed or stopped at one exact point of a job: between begin and sign, and between sign and finish. What the next
//! step needs of the ledger is locked, so that the job gets no further, as in a slow database; then the signer's process is dealt with.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tests::{
    Grown,
    load::{self, Tally},
};

use crate::{Bench, PATIENCE};

/// How often a signer is killed at each point.
const KILLS: usize = 3;
/// How long a signer is stopped.
const STOPPED: Duration = Duration::from_secs(10);
/// How often it is tried to stop a signer while it still waits: the server lets it wait for half a second.
const ATTEMPTS: usize = 10;
/// How long a job may take whose signer is lost: its lease lasts two seconds, and lost jobs are looked for every half second.
const TAKEN_OVER: Duration = Duration::from_secs(5);

/// Within a transaction the server's activity is looked at once, unless this is said.
const LOOK_AGAIN: &str = "PERFORM pg_stat_clear_snapshot()";

/// A point on a job's way through a signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    /// It is begun and checked; the last look at the ledger, after which it is signed, has no answer yet.
    BeginSign,
    /// It is signed; the signature is not in the ledger yet.
    SignFinish,
}

impl Point {
    const fn name(self) -> &'static str {
        match self {
            Self::BeginSign => "between begin and sign",
            Self::SignFinish => "between sign and finish",
        }
    }

    /// What is locked, and how the statement that shall wait for it is told from others.
    const fn lock(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::BeginSign => ("revocation", "ACCESS EXCLUSIVE", "SELECT job FROM revocation %"),
            // Reading goes on. Whatever ends a job writes here; only a signature is compared by its intent's digest.
            Self::SignFinish => ("result", "SHARE", "%asked.digest%"),
        }
    }
}

/// A session at the ledger's server that holds a lock until it is dropped.
struct Lock {
    psql: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Counts the statements that wait.
    waiting: String,
}

impl Lock {
    fn take(grown: &Grown, point: Point) -> Result<Self> {
        let (table, mode, statement) = point.lock();
        let mut psql = grown
            .postgres
            .psql_command(Grown::DATABASE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = psql.stdin.take();
        let output = psql.stdout.take().context("psql has no output")?;
        let mut lock = Self {
            psql,
            input,
            output: BufReader::new(output),
            waiting: format!(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) \
                 WHERE relation = '{table}'::regclass AND NOT granted AND query LIKE '{statement}'"
            ),
        };
        lock.ask(&format!("BEGIN; LOCK TABLE {table} IN {mode} MODE; SELECT 'locked'"))?;
        Ok(lock)
    }

    /// Says statements of which the last one returns one row, and hears it.
    fn ask(&mut self, statements: &str) -> Result<String> {
        let input = self.input.as_mut().context("psql is let go")?;
        writeln!(input, "{statements};")?;
        input.flush()?;
        let mut line = String::new();
        let length = self.output.read_line(&mut line)?;
        ensure!(length > 0, "psql ended at: {statements}");
        Ok(line.trim_end().to_owned())
    }

    /// Waits until the step waits that is not to be done: the owner of the only open job.
    fn owner(&mut self) -> Result<String> {
        let wait = format!(
            "DO $$ BEGIN FOR look IN 1..6000 LOOP EXIT WHEN ({}) > 0; PERFORM pg_sleep(0.005); {LOOK_AGAIN}; END LOOP; END $$",
            self.waiting
        );
        let owner = self.ask(&format!("{wait}; SELECT min(owner) FROM open"))?;
        ensure!(!owner.is_empty(), "no signer came to where it should wait");
        Ok(owner)
    }

    fn is_waited_for(&mut self) -> Result<bool> {
        let look = format!("DO $$ BEGIN {LOOK_AGAIN}; END $$; {}", self.waiting);
        Ok(self.ask(&look)? != "0")
    }

    /// Lets go of it.
    fn release(&mut self) {
        drop(self.input.take());
        // The second time, it has ended already.
        let _ = self.psql.wait();
    }

    /// Waits until the server has given up what waits: it is not done when the lock goes.
    fn outlast(&mut self) -> Result<()> {
        let begun = Instant::now();
        while self.is_waited_for()? {
            ensure!(begun.elapsed() < PATIENCE, "the server lets statements wait for ever");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.release();
    }
}

/// A signer that is stopped (SIGSTOP) at a point of one job.
struct Held {
    lock: Lock,
    tally: Tally,
    job: String,
    since: Instant,
    signer: String,
    id: u32,
    /// Who is left, and how many jobs it had taken over before.
    other: &'static str,
    taken_over: u64,
}

/// How a job ended, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    node: String,
    turn: String,
    all: String,
}

/// The series of jobs taken over from a lost owner.
const TAKEN_OVER_SERIES: &str = "bulkhead_signer_taken_over_total";

/// Accepts one job and stops the signer that has begun it, exactly at the point.
async fn hold(bench: &mut Bench, point: Point, name: &str) -> Result<Held> {
    let first = bench.grown.metric("signer-1", TAKEN_OVER_SERIES).await?;
    let second = bench.grown.metric("signer-2", TAKEN_OVER_SERIES).await?;
    for attempt in 0..ATTEMPTS {
        let mut lock = Lock::take(&bench.grown, point)?;
        let tally = load::post(&bench.at, 1, &format!("{name}-{attempt}")).await?;
        let job = tally.accepted.keys().next().context("no job was accepted")?.clone();
        let owner = lock.owner()?;
        let (signer, _) = owner.split_once('#').context("an owner is NODE#RUN")?;
        let id = bench.grown.id(signer).with_context(|| format!("{signer} runs"))?;
        tests::signal(id, "STOP")?;
        if lock.is_waited_for()? {
            let (other, taken_over) = if signer == "signer-1" {
                ("signer-2", second)
            } else {
                ("signer-1", first)
            };
            return Ok(Held {
                lock,
                tally,
                job,
                since: Instant::now(),
                signer: signer.to_owned(),
                id,
                other,
                taken_over,
            });
        }
        // The wait was over before the signer was stopped: nothing is known of where it was.
        tests::signal(id, "CONT")?;
        drop(lock);
        bench
            .conclude(&format!("(missed: {})", point.name()), &tally, None)
            .await?;
    }
    bail!("no signer could be stopped {}", point.name())
}

fn row(grown: &Grown, job: &str) -> Result<Option<Row>> {
    let text = grown.postgres.psql(
        Grown::DATABASE,
        &format!(
            "SELECT node, turn, state, strikes, at, encode(sha256(signature), 'hex') FROM result \
             WHERE job = decode('{:0>32}', 'hex')",
            job.to_lowercase()
        ),
    )?;
    let mut columns = text.split('|');
    let (Some(node), Some(turn), Some(state)) = (columns.next(), columns.next(), columns.next()) else {
        return Ok(None);
    };
    ensure!(state == "issued", "job {job} ended as {text}");
    Ok(Some(Row {
        node: node.to_owned(),
        turn: turn.to_owned(),
        all: text.clone(),
    }))
}

/// Waits until the other signer has taken the job over and issued it.
async fn taken_over(bench: &Bench, held: &Held) -> Result<(Row, Duration)> {
    let row = loop {
        if let Some(row) = row(&bench.grown, &held.job)? {
            break row;
        }
        ensure!(
            held.since.elapsed() < PATIENCE,
            "job {} of {} is not taken over",
            held.job,
            held.signer
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let took = held.since.elapsed();
    let (taken_over, Row { node, turn, .. }) = (bench.grown.metric(held.other, TAKEN_OVER_SERIES).await?, &row);
    ensure!(
        taken_over == held.taken_over + 1 && node == held.other && turn == "2",
        "{} has taken over {taken_over} jobs, {} before; {row:?}",
        held.other,
        held.taken_over
    );
    ensure!(
        took < TAKEN_OVER,
        "job {} was issued {took:?} after its signer was lost",
        held.job
    );
    Ok((row, took))
}

/// What a signer says about jobs whose end was not its own: second signatures over an intent, and jobs put back.
async fn late(grown: &Grown, signer: &str) -> Result<(u64, u64)> {
    let resigned = grown.metric(signer, "bulkhead_resigned_total").await?;
    Ok((resigned, grown.metric(signer, "bulkhead_signer_deferred_total").await?))
}

fn table() -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.set_header([
        "signer",
        "where",
        "issued by",
        "turn",
        "issued after, ms",
        "what the late one did",
    ]);
    table
}

fn line(table: &mut comfy_table::Table, what: &str, point: Point, row: &Row, took: Duration, late: &str) {
    table.add_row([
        what,
        point.name(),
        &row.node,
        &row.turn,
        &took.as_millis().to_string(),
        late,
    ]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_killed_between_two_steps_leaves_its_job_to_the_other() -> Result<()> {
    let mut bench = Bench::start(Grown::started(2, 2).await?).await?;
    let mut table = table();
    for point in [Point::BeginSign, Point::SignFinish] {
        for kill in 1..=KILLS {
            let name = format!("killed-{point:?}-{kill}").to_lowercase();
            let mut held = hold(&mut bench, point, &name).await?;
            bench.grown.kill(&held.signer)?;
            if point == Point::SignFinish {
                // The server has the signature already, and forgets it.
                held.lock.outlast()?;
            }
            held.lock.release();
            let (row, took) = taken_over(&bench, &held).await?;
            bench.grown.start(&held.signer)?;
            bench.grown.wait(&held.signer)?;
            let fault = format!("{} killed {}", held.signer, point.name());
            bench.conclude(&fault, &held.tally, None).await?;
            line(&mut table, &format!("{} killed", held.signer), point, &row, took, "-");
        }
    }
    println!("{table}");
    bench.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signer_stopped_between_two_steps_comes_back_without_effect() -> Result<()> {
    let mut bench = Bench::start(Grown::started(2, 2).await?).await?;
    let mut table = table();
    for point in [Point::BeginSign, Point::SignFinish] {
        let name = format!("stopped-{point:?}").to_lowercase();
        let (first, second) = (
            late(&bench.grown, "signer-1").await?,
            late(&bench.grown, "signer-2").await?,
        );
        let mut held = hold(&mut bench, point, &name).await?;
        let before = if held.signer == "signer-1" { first } else { second };
        if point == Point::SignFinish {
            held.lock.outlast()?;
        }
        // Between begin and sign, the answer to the last look is what the signer finds when it comes back: it may sign.
        held.lock.release();
        let (row, took) = taken_over(&bench, &held).await?;
        tokio::time::sleep(STOPPED.saturating_sub(held.since.elapsed())).await;
        tests::signal(held.id, "CONT")?;
        let continued = Instant::now();
        let (resigned, deferred) = loop {
            let now = late(&bench.grown, &held.signer).await?;
            if now != before {
                break (now.0 - before.0, now.1 - before.1);
            }
            ensure!(
                continued.elapsed() < PATIENCE,
                "{} does not come to an end",
                held.signer
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        ensure!(
            point == Point::BeginSign || resigned == 1,
            "the signature that was made before is not offered"
        );
        let after = self::row(&bench.grown, &held.job)?;
        ensure!(after.as_ref() == Some(&row), "{row:?} became {after:?}");
        let fault = format!("{} stopped {} for 10 s, then continued", held.signer, point.name());
        bench.conclude(&fault, &held.tally, None).await?;
        let did = format!("{resigned} signature offered, {deferred} put back: no effect");
        line(
            &mut table,
            &format!("{} stopped for 10 s", held.signer),
            point,
            &row,
            took,
            &did,
        );
    }
    println!("{table}");
    bench.end().await
}
