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
