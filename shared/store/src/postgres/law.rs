//! Conditions of the law that several statements share, over a row of `open`. Written as plain values (never as joins), so that a
//! statement keeps looking its jobs up by their names.

/// Whether the issuer's usage bit for the job's purpose is on.
pub(super) const USAGE_ON: &str = "coalesce((SELECT issuer.state <> 'destroyed' \
    AND CASE open.purpose WHEN 'ocsp-signer' THEN issuer.ocsp ELSE issuer.issue END \
    FROM issuer WHERE issuer.id = open.issuer), FALSE)";

/// Whether the lane is paused.
pub(super) const PAUSED: &str =
    "coalesce((SELECT lane.paused FROM lane WHERE lane.issuer = open.issuer AND lane.class = open.class), FALSE)";

/// Whether the owner's lease is over at `me.now`. An owner without a lease has lost it.
pub(super) const OWNER_LOST: &str =
    "coalesce((SELECT lease.lease_until FROM lease WHERE lease.incarnation = open.owner), 0) <= me.now";

/// The open row of `asked.job`, locked, where the law lets it through. By its name alone: with the law beside it the server might take
/// another way to a row of a table that it believes to be empty, and walk along all of it when it is not. Looked at once it is locked, a
/// row is as the last change left it.
pub(super) fn locked(law: &str, skip: bool) -> String {
    let wait = if skip { "SKIP LOCKED" } else { "" };
    format!(
        "LATERAL (SELECT * FROM (SELECT * FROM open WHERE open.job = asked.job LIMIT 1 FOR UPDATE {wait}) AS open WHERE {law}) AS open"
    )
}
