//! What happened to jobs, for people.

use domain::id::Serial;
use std::collections::HashMap;

use super::{
    column::{parsed, serial, serials, text, time},
    core::Core,
    fault::Fault,
    link::Lent,
    partition::Days,
};
use crate::{
    JobEvent,
    rules::{EVENTS_PER_JOB, LIST, cut},
};

/// Something to note; the store sets the time.
#[derive(Debug, Clone)]
pub(super) struct Event {
    job: Serial,
    kind: String,
    detail: String,
    by: String,
}

impl Event {
    pub(super) fn new(job: Serial, kind: &str, detail: &str, by: &str) -> Self {
        Self {
            job,
            kind: text(kind),
            detail: text(cut(detail)),
            by: text(by),
        }
    }
}

impl From<&JobEvent> for Event {
    fn from(event: &JobEvent) -> Self {
        Self::new(event.job, &event.kind, &event.detail, &event.by)
    }
}

impl Core {
    /// Notes events, as long as their job has not too many: one commit for each day of jobs.
    pub(super) async fn note(&self, lent: &mut Lent, events: &[Event]) -> Result<(), Fault> {
        let jobs: Vec<Serial> = events.iter().map(|event| event.job).collect();
        for (day, places) in Days::split(&jobs) {
            let mut before: HashMap<Serial, i64> = HashMap::new();
            let mut numbers = Vec::new();
            for &place in &places {
                let number = before.entry(jobs[place]).or_default();
                *number += 1;
                numbers.push(*number);
            }
            let column = |read: fn(&Event) -> &String| {
                places
                    .iter()
                    .map(|&place| read(&events[place]).clone())
                    .collect::<Vec<_>>()
            };
            let noted = self.days.over(
                day,
                "WITH asked AS MATERIALIZED (SELECT * FROM unnest($2::bytea[], $3::bigint[], $4::text[], $5::text[], $6::text[]) \
                     AS asked (job, number, kind, detail, said_by)) \
                 INSERT INTO job_event (job, kind, detail, said_by, at) \
                 SELECT job, kind, detail, said_by, coalesce($1, ledger_now()) FROM asked \
                 WHERE number + (SELECT count(*) FROM job_event{day} AS noted WHERE noted.job = asked.job) <= $7",
            );
            let noted = noted
                .bind(self.given_now())
                .bind(serials(places.iter().map(|&place| &jobs[place])))
                .bind(numbers)
                .bind(column(|event| &event.kind))
                .bind(column(|event| &event.detail))
                .bind(column(|event| &event.by))
                .bind(i64::from(EVENTS_PER_JOB));
            lent.rows(noted).await?;
        }
        Ok(())
    }

    /// What happened to a job, oldest first.
    pub(super) async fn events(&self, lent: &mut Lent, job: Serial) -> Result<Vec<JobEvent>, Fault> {
        let sql = format!(
            "SELECT job, kind, detail, said_by, at FROM job_event{{day}} AS noted WHERE job = ANY($1) ORDER BY at, id LIMIT {LIST}"
        );
        let rows = self.of_days(lent, &[job], &sql).await?;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok(JobEvent {
                job: serial(row, "job")?,
                kind: parsed::<String>(row, "kind")?,
                detail: parsed::<String>(row, "detail")?,
                by: parsed::<String>(row, "said_by")?,
                at: time(row, "at")?,
            })
        };
        rows.iter().map(read).collect()
    }
}
