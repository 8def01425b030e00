//! What runs and what is ordered of it, as text for people.

use domain::{breaker::Force, id::IssuerId};
use wire::{
    admin::Changed,
    operate::{FleetDocument, ForcedBreaker, IssuerBreakers, MarkedDestroyed},
};

use super::{changed, lanes};
use crate::output::{list, table, time};

/// Breakers that are named in one line.
const NAMED: usize = 5;

/// `issuer mark-destroyed`.
pub fn marked_destroyed(marked: &MarkedDestroyed, issuer: &IssuerId) -> String {
    let mut text = changed(
        &Changed {
            revision: marked.revision,
            changed: marked.changed,
            dry_run: marked.dry_run,
            warnings: marked.warnings.clone(),
        },
        &format!("issuer {issuer} is destroyed, for ever"),
    );
    if !marked.accounts.is_empty() {
        let accounts = list(&marked.accounts);
        text.extend(["accounts that issue nothing any more: ", &accounts, "\n"]);
    }
    if !marked.lanes.is_empty() {
        let (jobs, lanes) = (marked.jobs.to_string(), lanes(&marked.lanes));
        let words = " jobs are refused as issuer_destroyed; parked ones stay parked:\n\n";
        text.extend([jobs.as_str(), words, &lanes]);
    }
    text
}

/// `fleet`.
pub fn fleet(fleet: &[FleetDocument]) -> String {
    table(
        [
            "NODE",
            "ROLE",
            "STATE",
            "VERSION",
            "#REVISION",
            "#BEHIND",
            "#KEYS",
            "#IN FLIGHT",
            "SINCE",
            "#CLOCK MS",
            "TOKENS OUT",
            "BREAKERS",
        ],
        fleet.iter().map(|process| {
            [
                process.node.to_string(),
                format!("{:?}", process.role).to_lowercase(),
                state(process).into(),
                process.version.clone(),
                process.revision.to_string(),
                process.behind.to_string(),
                process.keys.to_string(),
                process.in_flight.to_string(),
                process.since.map(time).unwrap_or_default(),
                process
                    .clock_offset_ms
                    .map(|offset| format!("{offset:+}"))
                    .unwrap_or_default(),
                list(&process.tokens_out),
                not_closed(process),
            ]
        }),
    )
}

/// `breaker list`.
pub fn breakers(breakers: &[IssuerBreakers]) -> String {
    table(
        ["ISSUER", "ORDERED", "SIGNERS"],
        breakers.iter().map(|breaker| {
            let signers = breaker.signers.iter();
            [
                breaker.issuer.to_string(),
                breaker.force.map(|force| force.as_str().to_owned()).unwrap_or_default(),
                list(signers.map(|signer| format!("{} {}", signer.node, signer.standing))),
            ]
        }),
    )
}

/// `breaker force`.
pub fn forced(forced: &ForcedBreaker) -> String {
    let order = forced.force.map_or("auto", Force::as_str);
    if forced.changed {
        format!(
            "the breakers of {} are ordered: {order}; signers follow within a second or so\n",
            forced.issuer
        )
    } else {
        format!(
            "nothing to change: the breakers of {} are ordered: {order}\n",
            forced.issuer
        )
    }
}

const fn state(process: &FleetDocument) -> &'static str {
    match (process.alive, process.backs_off, process.stands_down) {
        (false, _, _) => "gone",
        (true, true, _) => "backs off",
        (true, false, true) => "stands down",
        (true, false, false) => "up",
    }
}

fn not_closed(process: &FleetDocument) -> String {
    let named = process.breakers.iter().take(NAMED);
    let text = list(named.map(|breaker| format!("{} {}", breaker.issuer, breaker.standing)));
    match process.breakers.len().saturating_sub(NAMED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}
