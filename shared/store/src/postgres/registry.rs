//! The registry's shelf: revisions and the issuers' rows, lanes' switches, audit chains, leases.

use std::time::Duration;

use domain::{
    bytes::{Blob, Digest},
    id::{Incarnation, NodeId},
    lane::Lane,
    registry::Revision,
};
use sqlx::postgres::PgRow;

use super::{
    column::{big, count, digest, get, issuer_state_text, parsed, time},
    core::{Core, one},
    fault::Fault,
    link::{Lent, Transaction},
};
use crate::{Announced, Announcement, Appended, AuditLink, Heartbeat, IssuerRow, LaneSwitches, rules::LEASE_SHOWN};

/// How often a change of the registry waits for what began before it.
const ATTEMPTS: u32 = 8;

/// Waits for everything that was begun with the registry as it was, and lets nothing begin before this transaction has ended. Taken
/// last, so that it lasts no longer than a commit.
async fn shut_gate(transaction: &mut Transaction<'_>) -> Result<(), Fault> {
    let shut = sqlx::query("LOCK TABLE registry_gate IN SHARE ROW EXCLUSIVE MODE");
    transaction.rows(shut).await.map(drop)
}

impl Core {
    /// Appends a revision and its issuers, unless its number and hash do not follow the head.
    pub(super) async fn append_revision(
        &self,
        lent: &mut Lent,
        revision: &Revision,
        issuers: &[IssuerRow],
    ) -> Result<Appended, Fault> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let mut transaction = lent.begin().await?;
            match append_revision(&mut transaction, revision, issuers).await {
                Ok(appended) => {
                    transaction.commit().await?;
                    return Ok(appended);
                }
                Err(fault) => {
                    transaction.roll_back().await?;
                    // Somebody else has appended this number meanwhile: the next look says so.
                    if left == 0 || !(fault.is_passing() || matches!(fault, Fault::Taken(_))) {
                        return Err(fault);
                    }
                }
            }
        }
    }

    /// Sets a lane's switches.
    pub(super) async fn switch_lane(&self, lent: &mut Lent, lane: &Lane, switches: LaneSwitches) -> Result<(), Fault> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let mut transaction = lent.begin().await?;
            let switch = sqlx::query(
                "INSERT INTO lane (issuer, class, paused, draining, diverted) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (issuer, class) DO UPDATE SET paused = excluded.paused, draining = excluded.draining, \
                 diverted = excluded.diverted",
            );
            let switch = switch
                .bind(lane.issuer.as_str().to_owned())
                .bind(lane.class.as_str())
                .bind(switches.paused)
                .bind(switches.draining)
                .bind(switches.diverted);
            let switched = match transaction.rows(switch).await {
                Ok(_) => shut_gate(&mut transaction).await,
                Err(fault) => Err(fault),
            };
            match switched {
                Ok(()) => return transaction.commit().await,
                Err(fault) => {
                    transaction.roll_back().await?;
                    if left == 0 || !fault.is_passing() {
                        return Err(fault);
                    }
                }
            }
        }
    }

    /// Number of the last revision, and the store's time.
    pub(super) async fn head(&self, lent: &mut Lent) -> Result<crate::Head, Fault> {
        let head = sqlx::query(
            "SELECT coalesce((SELECT max(number) FROM revision), 0) AS head, coalesce($1, ledger_now()) AS now",
        );
        let row = one(lent.rows(head.bind(self.given_now())).await?)?;
        Ok(crate::Head {
            revision: count(&row, "head")?,
            now: time(&row, "now")?,
        })
    }

    /// Revisions after a number.
    pub(super) async fn revisions(&self, lent: &mut Lent, after: u64, limit: u32) -> Result<Vec<Revision>, Fault> {
        let revisions = sqlx::query(
            "SELECT number, previous, body, hash, node, signature, at FROM revision WHERE number > $1 ORDER BY number LIMIT $2",
        );
        let rows = lent.rows(revisions.bind(big(after)).bind(i64::from(limit))).await?;
        let read = |row: &PgRow| {
            Ok(Revision {
                number: count(row, "number")?,
                previous: digest(row, "previous")?,
                body: Blob(get(row, "body")?),
                hash: digest(row, "hash")?,
                node: parsed(row, "node")?,
                signature: Blob(get(row, "signature")?),
                at: time(row, "at")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Renews a lease.
    pub(super) async fn heartbeat(
        &self,
        lent: &mut Lent,
        announcement: &Announcement,
        text: String,
        lease: Duration,
    ) -> Result<Heartbeat, Fault> {
        let renew = sqlx::query(
            "WITH me AS MATERIALIZED (SELECT coalesce($1::bigint, ledger_now()) AS now), \
             renewed AS (INSERT INTO lease (incarnation, lease_until, seen, announcement) SELECT $2, now + $3, now, $4 FROM me \
                 ON CONFLICT (incarnation) DO UPDATE SET lease_until = excluded.lease_until, seen = excluded.seen, \
                 announcement = excluded.announcement, stands_down = lease.stands_down AND lease.lease_until > excluded.seen) \
             SELECT me.now, coalesce((SELECT max(number) FROM revision), 0) AS head FROM me",
        );
        let renew = renew
            .bind(self.given_now())
            .bind(announcement.incarnation.to_string())
            .bind(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX / 2))
            .bind(super::column::text(&text));
        let row = one(lent.rows(renew).await?)?;
        Ok(Heartbeat {
            now: time(&row, "now")?,
            head: count(&row, "head")?,
        })
    }

    /// Ends a lease.
    pub(super) async fn goodbye(&self, lent: &mut Lent, incarnation: &Incarnation) -> Result<(), Fault> {
        let end = sqlx::query(
            "UPDATE lease SET lease_until = least(lease_until, coalesce($1, ledger_now())) WHERE incarnation = $2",
        );
        lent.rows(end.bind(self.given_now()).bind(incarnation.to_string()))
            .await
            .map(drop)
    }

    /// Incarnations whose lease has not ended long ago.
    pub(super) async fn incarnations(&self, lent: &mut Lent) -> Result<Vec<Announced>, Fault> {
        let leases = sqlx::query(
            "SELECT announcement, lease_until, seen FROM lease WHERE lease_until > coalesce($1, ledger_now()) - $2 \
             ORDER BY incarnation",
        );
        let rows = lent.rows(leases.bind(self.given_now()).bind(LEASE_SHOWN)).await?;
        let mut found = Vec::new();
        for row in rows {
            match serde_json::from_str(get(&row, "announcement")?) {
                Ok(announcement) => found.push(Announced {
                    announcement,
                    lease_until: time(&row, "lease_until")?,
                    seen: time(&row, "seen")?,
                }),
                Err(error) => tracing::error!(%error, "an announcement is left out"),
            }
        }
        Ok(found)
    }

    /// Appends an audit link, unless its sequence and hash do not follow its writer's last.
    pub(super) async fn append_audit(&self, lent: &mut Lent, link: &AuditLink) -> Result<Appended, Fault> {
        let events = serde_json::to_vec(&link.events).map_err(|error| Fault::damaged(error.to_string()))?;
        for _ in 0..ATTEMPTS {
            let append = sqlx::query(
                "WITH last AS MATERIALIZED (SELECT coalesce(max(sequence), 0) AS sequence, \
                     coalesce((SELECT hash FROM audit WHERE writer = $1 ORDER BY sequence DESC LIMIT 1), $8) AS hash \
                     FROM audit WHERE writer = $1), \
                 appended AS (INSERT INTO audit (writer, sequence, at, previous, events, hash, signature) \
                     SELECT $1, $2, $3, $4, $5, $6, $7 FROM last WHERE last.sequence + 1 = $2 AND last.hash = $4 \
                     RETURNING sequence) \
                 SELECT last.sequence, EXISTS (SELECT FROM appended) AS appended FROM last",
            );
            let append = append
                .bind(link.writer.as_str().to_owned())
                .bind(big(link.sequence))
                .bind(link.at.as_millis())
                .bind(link.previous.0.to_vec())
                .bind(events.clone())
                .bind(link.hash.0.to_vec())
                .bind(link.signature.0.clone())
                .bind(vec![0_u8; 32]);
            match lent.rows(append).await {
                Ok(rows) => {
                    let row = one(rows)?;
                    return Ok(if get(&row, "appended")? {
                        Appended::Done
                    } else {
                        Appended::Conflict(count(&row, "sequence")?)
                    });
                }
                // Somebody else has appended meanwhile: the next look says so.
                Err(Fault::Taken(_)) => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::Again("others append to this audit chain".into()))
    }

    /// Links of one writer after a sequence number, or of all after a time in milliseconds.
    pub(super) async fn audit(
        &self,
        lent: &mut Lent,
        writer: Option<&NodeId>,
        after: u64,
        limit: u32,
    ) -> Result<Vec<AuditLink>, Fault> {
        let query = match writer {
            Some(writer) => sqlx::query(
                "SELECT writer, sequence, at, previous, events, hash, signature FROM audit \
                 WHERE sequence > $1 AND writer = $3 ORDER BY sequence LIMIT $2",
            )
            .bind(big(after))
            .bind(i64::from(limit))
            .bind(writer.as_str().to_owned()),
            None => sqlx::query(
                "SELECT writer, sequence, at, previous, events, hash, signature FROM audit \
                 WHERE at > $1 ORDER BY at, writer, sequence LIMIT $2",
            )
            .bind(big(after))
            .bind(i64::from(limit)),
        };
        lent.rows(query).await?.iter().map(read_link).collect()
    }

    /// The last link of each writer.
    pub(super) async fn audit_heads(&self, lent: &mut Lent) -> Result<Vec<AuditLink>, Fault> {
        // From writer to writer, one step in the index each.
        let heads = sqlx::query(
            "WITH RECURSIVE writers (name) AS (SELECT min(writer) FROM audit UNION ALL \
             SELECT (SELECT min(writer) FROM audit WHERE writer > name) FROM writers WHERE name IS NOT NULL) \
             SELECT head.* FROM writers CROSS JOIN LATERAL (SELECT writer, sequence, at, previous, events, hash, signature \
             FROM audit WHERE writer = writers.name ORDER BY sequence DESC LIMIT 1) AS head ORDER BY head.writer",
        );
        lent.rows(heads).await?.iter().map(read_link).collect()
    }
}

async fn append_revision(
    transaction: &mut Transaction<'_>,
    revision: &Revision,
    issuers: &[IssuerRow],
) -> Result<Appended, Fault> {
    let last = sqlx::query("SELECT number, hash FROM revision ORDER BY number DESC LIMIT 1");
    let (head, hash) = match transaction.rows(last).await?.first() {
        Some(row) => (count(row, "number")?, digest(row, "hash")?),
        None => (0, Digest([0; 32])),
    };
    if revision.number != head + 1 || revision.previous != hash {
        return Ok(Appended::Conflict(head));
    }
    let append = sqlx::query(
        "INSERT INTO revision (number, previous, body, hash, node, signature, at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
    );
    let append = append
        .bind(big(revision.number))
        .bind(revision.previous.0.to_vec())
        .bind(revision.body.0.clone())
        .bind(revision.hash.0.to_vec())
        .bind(revision.node.as_str().to_owned())
        .bind(revision.signature.0.clone())
        .bind(revision.at.as_millis());
    transaction.rows(append).await?;
    let mut sorted: Vec<&IssuerRow> = issuers.iter().collect();
    sorted.sort_by(|one, other| one.id.cmp(&other.id));
    let put = sqlx::query(
        "INSERT INTO issuer (id, state, issue, crl, ocsp, not_after) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::boolean[], $4::boolean[], $5::boolean[], $6::bigint[]) \
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, issue = excluded.issue, crl = excluded.crl, \
         ocsp = excluded.ocsp, not_after = excluded.not_after",
    );
    let put = put
        .bind(
            sorted
                .iter()
                .map(|issuer| issuer.id.as_str().to_owned())
                .collect::<Vec<_>>(),
        )
        .bind(
            sorted
                .iter()
                .map(|issuer| issuer_state_text(issuer.state))
                .collect::<Vec<_>>(),
        )
        .bind(sorted.iter().map(|issuer| issuer.usage.issue).collect::<Vec<_>>())
        .bind(sorted.iter().map(|issuer| issuer.usage.crl).collect::<Vec<_>>())
        .bind(sorted.iter().map(|issuer| issuer.usage.ocsp).collect::<Vec<_>>())
        .bind(sorted.iter().map(|issuer| issuer.not_after).collect::<Vec<_>>());
    transaction.rows(put).await?;
    shut_gate(transaction).await?;
    Ok(Appended::Done)
}

fn read_link(row: &PgRow) -> Result<AuditLink, Fault> {
    Ok(AuditLink {
        writer: parsed(row, "writer")?,
        sequence: count(row, "sequence")?,
        at: time(row, "at")?,
        previous: digest(row, "previous")?,
        events: serde_json::from_slice(get(row, "events")?).map_err(|error| Fault::damaged(error.to_string()))?,
        hash: digest(row, "hash")?,
        signature: Blob(get(row, "signature")?),
    })
}
