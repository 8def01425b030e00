//! The registry's shelf: revisions and the issuers' rows, lanes' switches, audit chains, leases as others see them.

use domain::{
    bytes::{Blob, Digest},
    id::{IssuerId, NodeId},
    issuer::Usage,
    lane::Lane,
    registry::Revision,
    time::Timestamp,
};
use rusqlite::{Connection, Row};

use super::{
    column::Column,
    fault::Fault,
    ledger::Ledger,
    sql::{all, one, readable},
};
use crate::{Announced, Appended, AuditLink, IssuerRow, LaneSwitches, rules::LEASE_SHOWN};

impl Ledger<'_> {
    /// Appends a revision and its issuers, unless its number and hash do not follow the head.
    pub(super) fn append_revision(&mut self, revision: &Revision, issuers: &[IssuerRow]) -> Result<Appended, Fault> {
        let last = self.one(
            "SELECT number, hash FROM revision ORDER BY number DESC LIMIT 1",
            [],
            |row| Ok((row.get::<_, Column<u64>>(0)?.0, row.get::<_, Column<Digest>>(1)?.0)),
        )?;
        let (head, hash) = last.unwrap_or((0, Digest([0; 32])));
        if revision.number != head + 1 || revision.previous != hash {
            return Ok(Appended::Conflict(head));
        }
        self.execute(
            "INSERT INTO revision (number, previous, body, hash, node, signature, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                Column(revision.number),
                Column(&revision.previous),
                &revision.body.0,
                Column(&revision.hash),
                Column(&revision.node),
                &revision.signature.0,
                Column(revision.at),
            ),
        )?;
        for issuer in issuers {
            self.execute(
                "INSERT INTO issuer (id, state, issue, crl, ocsp, not_after) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
                 ON CONFLICT (id) DO UPDATE SET state = excluded.state, issue = excluded.issue, crl = excluded.crl, \
                 ocsp = excluded.ocsp, not_after = excluded.not_after",
                (
                    Column(&issuer.id),
                    Column(&issuer.state),
                    issuer.usage.issue,
                    issuer.usage.crl,
                    issuer.usage.ocsp,
                    issuer.not_after,
                ),
            )?;
        }
        self.forget();
        Ok(Appended::Done)
    }

    /// Sets a lane's switches.
    pub(super) fn switch_lane(&mut self, lane: &Lane, switches: LaneSwitches) -> Result<(), Fault> {
        self.execute(
            "INSERT INTO lane (issuer, class, paused, draining, diverted) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (issuer, class) DO UPDATE SET paused = excluded.paused, draining = excluded.draining, \
             diverted = excluded.diverted",
            (
                Column(&lane.issuer),
                Column(&lane.class),
                switches.paused,
                switches.draining,
                switches.diverted,
            ),
        )?;
        self.forget();
        Ok(())
    }

    /// Appends an audit link, unless its sequence and hash do not follow its writer's last.
    pub(super) fn append_audit(&mut self, link: &AuditLink) -> Result<Appended, Fault> {
        let last = self.one(
            "SELECT sequence, hash FROM audit WHERE writer = ?1 ORDER BY sequence DESC LIMIT 1",
            [Column(&link.writer)],
            |row| Ok((row.get::<_, Column<u64>>(0)?.0, row.get::<_, Column<Digest>>(1)?.0)),
        )?;
        let (sequence, hash) = last.unwrap_or((0, Digest([0; 32])));
        if link.sequence != sequence + 1 || link.previous != hash {
            return Ok(Appended::Conflict(sequence));
        }
        self.execute(
            "INSERT INTO audit (writer, sequence, at, previous, events, hash, signature) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            (
                Column(&link.writer),
                Column(link.sequence),
                Column(link.at),
                Column(&link.previous),
                Column(&link.events),
                Column(&link.hash),
                &link.signature.0,
            ),
        )?;
        Ok(Appended::Done)
    }
}

/// Number of the last revision.
pub(super) fn head(connection: &Connection) -> Result<u64, Fault> {
    let head = one(connection, "SELECT max(number) FROM revision", [], |row| {
        row.get::<_, Option<Column<u64>>>(0)
    })?;
    Ok(head.flatten().map_or(0, |number| number.0))
}

/// Revisions after a number.
pub(super) fn revisions(connection: &Connection, after: u64, limit: u32) -> Result<Vec<Revision>, Fault> {
    all(
        connection,
        "SELECT number, previous, body, hash, node, signature, at FROM revision WHERE number > ?1 ORDER BY number LIMIT ?2",
        (Column(after), limit),
        |row| {
            Ok(Revision {
                number: row.get::<_, Column<u64>>(0)?.0,
                previous: row.get::<_, Column<Digest>>(1)?.0,
                body: Blob(row.get(2)?),
                hash: row.get::<_, Column<Digest>>(3)?.0,
                node: row.get::<_, Column<NodeId>>(4)?.0,
                signature: Blob(row.get(5)?),
                at: row.get::<_, Column<Timestamp>>(6)?.0,
            })
        },
    )
}

/// An issuer's row.
pub(super) fn issuer(connection: &Connection, id: &IssuerId) -> Result<Option<IssuerRow>, Fault> {
    one(
        connection,
        "SELECT state, issue, crl, ocsp, not_after FROM issuer WHERE id = ?1",
        [Column(id)],
        |row| {
            Ok(IssuerRow {
                id: id.clone(),
                state: row.get::<_, Column<_>>(0)?.0,
                usage: Usage {
                    issue: row.get(1)?,
                    crl: row.get(2)?,
                    ocsp: row.get(3)?,
                },
                not_after: row.get(4)?,
            })
        },
    )
}

/// A lane's switches.
pub(super) fn switches(connection: &Connection, lane: &Lane) -> Result<LaneSwitches, Fault> {
    let found = one(
        connection,
        "SELECT paused, draining, diverted FROM lane WHERE issuer = ?1 AND class = ?2",
        (Column(&lane.issuer), Column(&lane.class)),
        |row| read_switches(row, 0),
    )?;
    Ok(found.unwrap_or_default())
}

/// Every lane that has a switch set.
pub(super) fn switched(connection: &Connection) -> Result<Vec<(Lane, LaneSwitches)>, Fault> {
    readable(
        connection,
        "SELECT issuer, class, paused, draining, diverted FROM lane WHERE paused OR draining OR diverted",
        [],
        |row| Ok((super::open::read_lane(row, 0)?, read_switches(row, 2)?)),
    )
}

fn read_switches(row: &Row<'_>, first: usize) -> rusqlite::Result<LaneSwitches> {
    Ok(LaneSwitches {
        paused: row.get(first)?,
        draining: row.get(first + 1)?,
        diverted: row.get(first + 2)?,
    })
}

/// Incarnations whose lease has not ended long ago.
pub(super) fn incarnations(connection: &Connection, now: Timestamp) -> Result<Vec<Announced>, Fault> {
    let rows = readable(
        connection,
        "SELECT announcement, lease_until, seen FROM lease WHERE lease_until > ?1 - ?2 ORDER BY incarnation",
        (Column(now), LEASE_SHOWN),
        |row| {
            let text: String = row.get(0)?;
            let lease_until = row.get::<_, Column<Timestamp>>(1)?.0;
            Ok((text, lease_until, row.get::<_, Column<Timestamp>>(2)?.0))
        },
    )?;
    let announced = |(text, lease_until, seen): (String, _, _)| match serde_json::from_str(&text) {
        Ok(announcement) => Some(Announced {
            announcement,
            lease_until,
            seen,
        }),
        Err(error) => {
            tracing::error!(%error, "an announcement is left out");
            None
        }
    };
    Ok(rows.into_iter().filter_map(announced).collect())
}

macro_rules! audit_columns {
    () => {
        "SELECT writer, sequence, at, previous, events, hash, signature FROM audit "
    };
}

/// Links of one writer after a sequence number, or of all after a time in milliseconds.
pub(super) fn audit(
    connection: &Connection,
    writer: Option<&NodeId>,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditLink>, Fault> {
    match writer {
        Some(writer) => all(
            connection,
            concat!(
                audit_columns!(),
                "WHERE writer = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3"
            ),
            (Column(writer), Column(after), limit),
            read_link,
        ),
        None => all(
            connection,
            concat!(audit_columns!(), "WHERE at > ?1 ORDER BY at, writer, sequence LIMIT ?2"),
            (Column(after), limit),
            read_link,
        ),
    }
}

/// The last link of each writer.
pub(super) fn audit_heads(connection: &Connection) -> Result<Vec<AuditLink>, Fault> {
    all(
        connection,
        // From writer to writer, one step in the index each.
        "WITH RECURSIVE writers (name) AS (SELECT min(writer) FROM audit UNION ALL \
         SELECT (SELECT min(writer) FROM audit WHERE writer > name) FROM writers WHERE name IS NOT NULL) \
         SELECT writer, sequence, at, previous, events, hash, signature FROM writers CROSS JOIN audit \
         ON writer = name AND sequence = (SELECT max(sequence) FROM audit WHERE writer = name)",
        [],
        read_link,
    )
}

fn read_link(row: &Row<'_>) -> rusqlite::Result<AuditLink> {
    Ok(AuditLink {
        writer: row.get::<_, Column<NodeId>>(0)?.0,
        sequence: row.get::<_, Column<u64>>(1)?.0,
        at: row.get::<_, Column<Timestamp>>(2)?.0,
        previous: row.get::<_, Column<Digest>>(3)?.0,
        events: row.get::<_, Column<Vec<Blob>>>(4)?.0,
        hash: row.get::<_, Column<Digest>>(5)?.0,
        signature: Blob(row.get(6)?),
    })
}
