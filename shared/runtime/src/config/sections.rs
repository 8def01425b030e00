//! The sections, key by key. Durations are written "30s", sizes carry their unit in the name.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use domain::lane::Class;
use serde::{Deserialize, Serialize};

use super::Breaker;

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Place {
    /// Everything that must be kept: ledger, keys, certificates, ports. Default `bulkhead-data`, beside the current directory.
    pub data_dir: PathBuf,
    /// Address of the certificate API. Port 0 takes a free one and keeps it. Default `127.0.0.1:8443`.
    pub listen: SocketAddr,
    /// Address of the operators' API. Default `127.0.0.1:8444`.
    pub admin_listen: SocketAddr,
    /// Address of `/livez`, `/readyz` and `/metrics`, plain HTTP. Default `127.0.0.1:9464`.
    pub metrics_listen: SocketAddr,
    /// Base of the URLs in certificates (CRL, OCSP, CA certificate): `http://`, no slash at the end. Fixed for a certificate's life.
    /// Default `http://127.0.0.1:8080`.
    pub public_url: String,
    /// Names and addresses, besides the addresses listened on, by which clients call this server. Default none.
    pub names: Vec<String>,
    /// Where clients reach the front ends, `https://name:port`: for the context file that control writes. Empty: it is left out.
    /// Default empty.
    pub api_url: String,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            data_dir: "bulkhead-data".into(),
            listen: loopback(8443),
            admin_listen: loopback(8444),
            metrics_listen: loopback(9464),
            public_url: "http://127.0.0.1:8080".into(),
            names: Vec::new(),
            api_url: String::new(),
        }
    }
}

impl Place {
    /// Every name and address by which clients and operators call this process.
    pub fn called(&self) -> Vec<String> {
        let addresses = [self.listen, self.admin_listen]
            .into_iter()
            .map(|address| address.ip())
            .filter(|address| !address.is_unspecified())
            .map(|address| address.to_string());
        self.names.iter().cloned().chain(addresses).collect()
    }
}

/// Connections of the TLS listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Connections at a time; over it they wait in the system's backlog. Default 4096.
    pub connections: usize,
    /// How long a handshake may take. Default 5s.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How long the head of a request may take, and how long a connection may be idle before it. Default 30s.
    #[serde(with = "humantime_serde")]
    pub header_read_timeout: Duration,
    /// Requests at a time on one HTTP/2 connection. Default 128.
    pub streams: u32,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            connections: 4096,
            handshake_timeout: Duration::from_secs(5),
            header_read_timeout: Duration::from_secs(30),
            streams: 128,
        }
    }
}

/// Front ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Frontend {
    /// Greatest body of a request, in bytes. Default 65536.
    pub max_body_bytes: usize,
    /// How long a body may take to arrive. Default 10s.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// How long any request may take, besides the wait that a client asks for. Default 30s.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Requests at a time, besides those that only wait; an issuer may have half of them, and its accounts share that. Default 8192.
    pub requests: usize,
    /// Threads that verify requests and prepare certificates. 0: one per core. Default 0.
    pub admission_threads: usize,
    /// Requests of one issuer that wait for verification; over it: `overloaded`. Default 2048.
    pub verify_queue_per_issuer: usize,
    /// Requests of one issuer that wait for the accept batch; over it: `overloaded`. Default 2048.
    pub accept_queue_per_issuer: usize,
    /// Jobs accepted in one call of the store. Default 64.
    pub accept_batch: usize,
    /// Longest wait that `Prefer: wait` gives, whatever a profile's `answer_within` says. Default 60s.
    #[serde(with = "humantime_serde")]
    pub wait_limit: Duration,
    /// Requests that wait for their certificate at a time; an issuer may have half of them, and its accounts share that. Over it they
    /// are answered at once, without. Default 4096.
    pub waiting: usize,
    /// How often the ledger is asked about all waiting jobs. Default 250ms.
    #[serde(with = "humantime_serde")]
    pub wait_poll: Duration,
    /// Failed logins and tokens a second of one client certificate; over it 429 instead of 401. Default 20.
    pub failures_per_second: u32,
    /// How long an idempotency key is kept. Default 24h.
    #[serde(with = "humantime_serde")]
    pub idempotency_keep: Duration,
    /// Longest window of `/stats`. Default 30days.
    #[serde(with = "humantime_serde")]
    pub statistics_window: Duration,
    /// Verified tokens that are remembered. Default 10000.
    pub token_cache: u64,
}

impl Default for Frontend {
    fn default() -> Self {
        Self {
            max_body_bytes: 64 * 1024,
            body_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            requests: 8192,
            admission_threads: 0,
            verify_queue_per_issuer: 2048,
            accept_queue_per_issuer: 2048,
            accept_batch: 64,
            wait_limit: Duration::from_mins(1),
            waiting: 4096,
            wait_poll: Duration::from_millis(250),
            failures_per_second: 20,
            idempotency_keep: Duration::from_hours(24),
            statistics_window: Duration::from_hours(30 * 24),
            token_cache: 10_000,
        }
    }
}

/// What a new account may do unless the operator says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Accounts {
    /// Requests a second. Default 2000.
    pub requests_per_second: u32,
    /// Jobs open at a time. Default 1000000.
    pub jobs_in_flight: u32,
    /// Certificates in all. Default 10000000.
    pub issuance_quota: u64,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            requests_per_second: 2000,
            jobs_in_flight: 1_000_000,
            issuance_quota: 10_000_000,
        }
    }
}

/// Signers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Signer {
    /// Threads that sign, of which one issuer holds at most half, and a quarter where there are several tokens. 0: eight per core, at least 16.
    /// Default 0.
    pub threads: usize,
    /// Jobs of one lane that are out to this signer at a time. Default 64.
    pub prefetch: usize,
    /// Jobs begun in one call of the store. Default 64.
    pub begin_batch: usize,
    /// Jobs finished in one call of the store. Default 64.
    pub finish_batch: usize,
    /// How long one signature may take before the job may be taken over at three times that. Default 5s.
    #[serde(with = "humantime_serde")]
    pub operation_limit: Duration,
    /// How long a lease lasts without a heartbeat. Default 2s.
    #[serde(with = "humantime_serde")]
    pub lease: Duration,
    /// How often the lease is renewed. Default 500ms.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How often jobs past their time are ended. Default 250ms.
    #[serde(with = "humantime_serde")]
    pub sweep: Duration,
    /// Greatest difference from store time at which jobs are taken. Default 2s.
    #[serde(with = "humantime_serde")]
    pub clock_limit: Duration,
    /// How many of the signers that hold an issuer's key, in percent (0 to 100), may stand down at a time because they are slow or
    /// flicker; the last one never may. Default 50.
    pub stand_down_percent: u8,
    /// Breakers.
    pub breaker: Breaker,
}

impl Default for Signer {
    fn default() -> Self {
        Self {
            threads: 0,
            prefetch: 64,
            begin_batch: 64,
            finish_batch: 64,
            operation_limit: Duration::from_secs(5),
            lease: Duration::from_secs(2),
            heartbeat: Duration::from_millis(500),
            sweep: Duration::from_millis(250),
            clock_limit: Duration::from_secs(2),
            stand_down_percent: 50,
            breaker: Breaker::default(),
        }
    }
}

/// Depth of lanes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lanes {
    /// Open jobs of an interactive lane; over it: `overloaded`. Default 10000.
    pub interactive: u64,
    /// Open jobs of a renewal lane. Default 2000000.
    pub renewal: u64,
    /// Open jobs of a bulk lane. Default 2000000.
    pub bulk: u64,
    /// Part of a lane that one account may hold, over 0 and at most 1. Default 0.5.
    pub account_share: f64,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            interactive: 10_000,
            renewal: 2_000_000,
            bulk: 2_000_000,
            account_share: 0.5,
        }
    }
}

impl Lanes {
    /// Open jobs that a lane of this class may hold.
    pub const fn depth(&self, class: Class) -> u64 {
        match class {
            Class::Interactive => self.interactive,
            Class::Renewal => self.renewal,
            Class::Bulk => self.bulk,
        }
    }

    /// Open jobs of a lane of this class that one account may hold; at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the share is checked to lie within 0 and 1, and no lane is deeper than 2^52"
    )]
    pub fn share(&self, class: Class) -> u64 {
        ((self.depth(class) as f64 * self.account_share) as u64).max(1)
    }
}

/// Bearer tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tokens {
    /// How long a token of the certificate API lives; clients renew at ten minutes. Default 12m.
    #[serde(with = "humantime_serde")]
    pub hvca_life: Duration,
    /// How long a front end signs with the same key. Default 24h.
    #[serde(with = "humantime_serde")]
    pub key_life: Duration,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            hvca_life: Duration::from_mins(12),
            key_life: Duration::from_hours(24),
        }
    }
}

/// The registry and how it is followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// How often the store is asked for a new revision, besides being told. Default 500ms.
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
    /// After how long without any news a process counts as behind. Default 30s.
    #[serde(with = "humantime_serde")]
    pub silence: Duration,
    /// How long a node's enrolment lasts. Default 365days.
    #[serde(with = "humantime_serde")]
    pub enrolment: Duration,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            silence: Duration::from_secs(30),
            enrolment: Duration::from_hours(365 * 24),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Logs and traces.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// `human` or `json`. Default `human`.
    pub format: LogFormat,
    /// What is logged: `info`, or by part `info,signer=debug`. The environment variable `BULKHEAD_LOG` overrules it. Default `info`.
    pub filter: String,
    /// Base of the collector that takes spans by OTLP over HTTP, such as `http://127.0.0.1:4318`. Empty: no spans are made. Default empty.
    pub otlp_endpoint: String,
    /// Part of the traces that begin here and are recorded, from 0 to 1; a client's own decision goes before it. Default 0.01.
    pub trace_ratio: f64,
    /// `service.name` of the spans. Default `bulkhead`.
    pub service_name: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info".into(),
            otlp_endpoint: String::new(),
            trace_ratio: 0.01,
            service_name: "bulkhead".into(),
        }
    }
}

/// Stopping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long what is in flight may take after a signal. Default 20s.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(20),
        }
    }
}
