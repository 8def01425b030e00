//! What a signer measures.

use std::time::Duration;

use domain::{id::IssuerId, lane::Class};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
};
use runtime::telemetry::{IssuerLabel, LATENCY_BUCKETS, Metrics as Registry};

/// How an attempt to sign ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignOutcome {
    /// With a signature that verifies.
    Signed,
    /// With two that do not.
    Wrong,
    /// Without one.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignLabels {
    class: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProblemLabel {
    id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// The series of one signer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    issued: Family<IssuerLabel, Counter>,
    refused: Family<ProblemLabel, Counter>,
    reports: Family<KindLabel, Counter>,
    sign_seconds: Family<SignLabels, Histogram>,
    /// Jobs put back, unharmed.
    pub deferred: Counter,
    /// Jobs that the sweep of this signer has ended.
    pub expired: Counter,
    /// Second signatures over an intent that had one already.
    pub resigned: Counter,
    /// Jobs taken over from a lost owner.
    pub taken_over: Counter,
    /// Jobs parked after their third lost owner.
    pub poisoned: Counter,
    /// Jobs whose rows are not what a front end signed.
    pub altered: Counter,
    /// Jobs over which the program panicked.
    pub panics: Counter,
    /// Messages set aside because they could not be believed or read.
    pub quarantined: Counter,
    /// Answers that were not sent; their front ends read the ledger.
    pub answers_dropped: Counter,
    /// Jobs in one `begin`.
    pub begin_jobs: Histogram,
    /// Signatures in one `finish`.
    pub finish_jobs: Histogram,
    /// Jobs that hold a slot.
    pub in_flight: Gauge,
    /// Jobs that wait in this signer.
    pub waiting: Gauge,
    /// Lanes that are served.
    pub lanes: Gauge,
    /// Whether jobs are begun at all: 1 or 0.
    pub beginning: Gauge,
    /// Page the operators: a fault of the program has stopped this signer.
    pub faults: Counter,
}

fn batch_sizes() -> Histogram {
    Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0])
}

impl Metrics {
    /// Registers the series.
    pub fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| registry.register(name, help, Counter::default());
        let gauge = |name: &str, help: &str| registry.register(name, help, Gauge::default());
        Self {
            issued: registry.counter_per_issuer("signer_issued", "Certificates issued"),
            deferred: counter("signer_deferred", "Jobs put back"),
            refused: registry.register(
                "signer_refused",
                "Jobs refused after acceptance, by problem id",
                Family::default(),
            ),
            reports: registry.register(
                "signer_reports",
                "Things that operators must hear of, by kind",
                Family::default(),
            ),
            sign_seconds: registry.register(
                "signer_sign_seconds",
                "Time of a signature with its verification",
                Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            ),
            expired: counter("signer_expired", "Jobs ended by the sweep"),
            resigned: counter("resigned", "Second signatures over an intent"),
            taken_over: counter("signer_taken_over", "Jobs taken over from a lost owner"),
            poisoned: counter(
                "signer_poisoned",
                "Jobs parked because they lost their owner each time that they ran alone",
            ),
            altered: counter("ledger_altered", "Jobs whose rows are not what a front end signed"),
            panics: counter("signer_panics", "Jobs over which the program panicked"),
            quarantined: counter("signer_quarantined", "Messages set aside"),
            answers_dropped: counter("signer_answers_dropped", "Answers that were not sent"),
            begin_jobs: registry.register("signer_begin_jobs", "Jobs in one begin", batch_sizes()),
            finish_jobs: registry.register("signer_finish_jobs", "Signatures in one finish", batch_sizes()),
            in_flight: gauge("signer_in_flight", "Jobs that hold a slot"),
            waiting: gauge("signer_waiting", "Jobs that wait in this signer"),
            lanes: gauge("signer_lanes", "Lanes that are served"),
            beginning: gauge("signer_beginning", "Whether jobs are begun"),
            faults: counter(
                "signer_program_faults",
                "Faults of the program that stopped this signer",
            ),
            registry: registry.clone(),
        }
    }

    /// A certificate was issued.
    pub fn issued(&self, issuer: &IssuerId) {
        self.issued.get_or_create(&self.registry.issuer_label(issuer)).inc();
    }

    /// A job was refused.
    pub fn refused(&self, id: &str) {
        self.refused.get_or_create(&ProblemLabel { id: id.to_owned() }).inc();
    }

    /// Something was reported.
    pub fn reported(&self, kind: &'static str) {
        self.reports.get_or_create(&KindLabel { kind }).inc();
    }

    /// A signature was tried.
    pub fn signed(&self, class: Class, outcome: SignOutcome, took: Duration) {
        let outcome = match outcome {
            SignOutcome::Signed => "signed",
            SignOutcome::Wrong => "wrong",
            SignOutcome::Failed => "failed",
        };
        let class = class.as_str();
        self.sign_seconds
            .get_or_create(&SignLabels { class, outcome })
            .observe(took.as_secs_f64());
    }
}
