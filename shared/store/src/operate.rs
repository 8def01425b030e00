//! What operators, accounts and the registry read and write.

use std::time::Duration;

use domain::{
    id::{AccountId, Incarnation, IssuerId, ProfileId, Serial, TokenId},
    issuer::{IssuerState, Role, Usage},
    job::State,
    lane::Lane,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// What a process says of itself with each heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Which run of which node.
    pub incarnation: Incarnation,
    /// What it does.
    pub role: Role,
    /// Program version.
    pub version: String,
    /// Registry revision that it applies.
    pub revision: u64,
    /// Issuers whose keys it holds, on tokens that are not out (signers).
    pub issuers: Vec<IssuerId>,
    /// Breakers that are not closed: issuer and state.
    pub breakers: Vec<(IssuerId, String)>,
    /// Jobs in flight.
    pub in_flight: u64,
    /// What it has signed lately (signers).
    #[serde(default)]
    pub signed: Signed,
    /// Tokens that are out (signers).
    #[serde(default)]
    pub tokens_out: Vec<TokenId>,
    /// Whether every one of them is out, so that it backs off (signers).
    #[serde(default)]
    pub backs_off: bool,
    /// Whether it is slow or flickers and stands down (signers).
    #[serde(default)]
    pub stands_down: bool,
    /// When this run began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// How far its host's clock is ahead of the store's, in milliseconds, as far as it knows.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
}

impl Announcement {
    /// What a run of a node says that holds no keys and has nothing else to say.
    pub fn new(incarnation: Incarnation, role: Role, revision: u64) -> Self {
        Self {
            incarnation,
            role,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision,
            issuers: Vec::new(),
            breakers: Vec::new(),
            in_flight: 0,
            signed: Signed::default(),
            tokens_out: Vec::new(),
            backs_off: false,
            stands_down: false,
            started_at: None,
            clock_offset_ms: None,
        }
    }
}

/// How many jobs a signer has signed in each lane since its last announcement. Lanes that are missing had none, unless
/// [`Signed::MOST`] are named.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Signed {
    /// Over how long, in milliseconds; 0: nothing is said.
    pub over_ms: u64,
    /// Lanes and jobs, the most first.
    pub lanes: Vec<(Lane, u64)>,
}

impl Signed {
    /// How many lanes are named at most.
    pub const MOST: usize = 500;
}

/// The store's answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The store's time.
    pub now: Timestamp,
    /// Number of the last revision.
    pub head: u64,
}

/// An announcement and the state of its lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// What it said.
    pub announcement: Announcement,
    /// When its lease ends, or ended.
    pub lease_until: Timestamp,
    /// When it last said so.
    pub seen: Timestamp,
}

/// The registry's number and the store's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of the last revision; 0 before the first.
    pub revision: u64,
    /// The store's time.
    pub now: Timestamp,
}

/// An issuer as accept, begin and finish join it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerRow {
    /// Which.
    pub id: IssuerId,
    /// State.
    pub state: IssuerState,
    /// Usage bits.
    pub usage: Usage,
    /// Earliest notAfter of its chain, UNIX seconds.
    pub not_after: i64,
}

/// Whether something was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It was.
    Done,
    /// Something else was appended first; the number is the head's.
    Conflict(u64),
}

/// What is counted for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Certificates issued.
    Issued,
    /// Certificates revoked.
    Revoked,
}

/// Which time a statistics window is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistics {
    /// Issued: by the time of issuance, or by notBefore where that is within a second of it.
    Issued,
    /// Revoked: by revocationDate.
    Revoked,
    /// Expiring: by notAfter.
    Expiring,
}

/// One page of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsQuery {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub statistics: Statistics,
    /// First second that counts, UNIX.
    pub from: i64,
    /// Last second that counts, UNIX.
    pub to: i64,
    /// Page, from 1.
    pub page: u32,
    /// Entries a page.
    pub per_page: u32,
}

/// The answer: entries ascending by serial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatisticsPage {
    /// Entries of this page.
    pub entries: Vec<StatisticsEntry>,
    /// Entries of all pages.
    pub total: u64,
}

/// A certificate in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatisticsEntry {
    /// Serial.
    pub job: Serial,
    /// notBefore, UNIX seconds.
    pub not_before: i64,
    /// notAfter, UNIX seconds.
    pub not_after: i64,
}

/// What jobs an operator wants to see. Absent fields do not restrict.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobFilter {
    /// State.
    pub state: Option<State>,
    /// Issuer.
    pub issuer: Option<IssuerId>,
    /// Account.
    pub account: Option<AccountId>,
    /// Only serials below this one.
    pub before: Option<Serial>,
    /// At most this many (and never more than 1,000).
    pub limit: u32,
}

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSummary {
    /// Which.
    pub job: Serial,
    /// Issuer and class.
    pub lane: Lane,
    /// Whose.
    pub account: AccountId,
    /// Under which profile.
    pub profile: ProfileId,
    /// State.
    pub state: State,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Until when anybody wants it.
    pub sign_by: Timestamp,
    /// Whether it is revoked.
    pub revoked: bool,
}

/// Something that happened to a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobEvent {
    /// Which.
    pub job: Serial,
    /// A word: `deferred`, `taken_over`, `altered`, `poisoned`, `resigned` ...
    pub kind: String,
    /// For people.
    pub detail: String,
    /// Who says so.
    pub by: String,
    /// When; the store sets it.
    pub at: Timestamp,
}

/// What operators can switch on a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneSwitches {
    /// Jobs are accepted and none is begun.
    pub paused: bool,
    /// None is accepted and those that are there are begun.
    pub draining: bool,
    /// Jobs are accepted as parked.
    pub diverted: bool,
}

/// A lane, as the ledger sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneStatus {
    /// Which.
    pub lane: Lane,
    /// Its switches.
    pub switches: LaneSwitches,
    /// Jobs that wait.
    pub queued: u64,
    /// Jobs that are worked on.
    pub signing: u64,
    /// Jobs that are set aside.
    pub parked: u64,
    /// How long the oldest queued job has waited.
    pub oldest: Option<Duration>,
}
