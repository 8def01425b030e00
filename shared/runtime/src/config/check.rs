//! What a configuration may not say: values that let nothing through, and keys that contradict each other.

use std::{path::Path, time::Duration};

use super::{Amqp, BrokerEngine, Config, NodeRole, OWN_TOKEN, Postgres, StoreEngine, token};
use crate::telemetry::parse_filter;

/// The key, and what is wrong with it.
pub(super) type Refusal = (String, String);

pub(super) fn refuse<T>(key: &str, problem: impl Into<String>) -> Result<T, Refusal> {
    Err((key.to_owned(), problem.into()))
}

impl Config {
    /// Refuses what contradicts itself: the key, and what is wrong with it.
    pub fn check(&self) -> Result<(), Refusal> {
        let Self {
            node: _,
            place,
            tls,
            store,
            broker,
            token: _,
            frontend,
            accounts,
            signer,
            lanes,
            tokens,
            registry,
            telemetry,
            shutdown,
        } = self;
        for (key, value) in [
            ("tls.connections", tls.connections as u64),
            ("tls.streams", u64::from(tls.streams)),
            ("store.commit_rows", store.commit_rows as u64),
            ("store.queue", store.queue as u64),
            ("store.readers", store.readers as u64),
            ("broker.lane_envelopes", broker.lane_envelopes as u64),
            ("broker.lane_unconfirmed", broker.lane_unconfirmed as u64),
            ("broker.answers", broker.answers as u64),
            ("broker.amqp.own_lanes", broker.amqp.own_lanes as u64),
            ("broker.amqp.prefetch_envelopes", broker.amqp.prefetch_envelopes as u64),
            ("store.postgres.port", u64::from(store.postgres.port)),
            ("frontend.max_body_bytes", frontend.max_body_bytes as u64),
            ("frontend.requests", frontend.requests as u64),
            (
                "frontend.verify_queue_per_issuer",
                frontend.verify_queue_per_issuer as u64,
            ),
            (
                "frontend.accept_queue_per_issuer",
                frontend.accept_queue_per_issuer as u64,
            ),
            ("frontend.accept_batch", frontend.accept_batch as u64),
            ("frontend.waiting", frontend.waiting as u64),
            ("frontend.failures_per_second", u64::from(frontend.failures_per_second)),
            ("frontend.token_cache", frontend.token_cache),
            ("accounts.requests_per_second", u64::from(accounts.requests_per_second)),
            ("accounts.jobs_in_flight", u64::from(accounts.jobs_in_flight)),
            ("signer.prefetch", signer.prefetch as u64),
            ("signer.begin_batch", signer.begin_batch as u64),
            ("signer.finish_batch", signer.finish_batch as u64),
            ("lanes.interactive", lanes.interactive),
            ("lanes.renewal", lanes.renewal),
            ("lanes.bulk", lanes.bulk),
        ] {
            if value == 0 {
                return refuse(key, "0 would let nothing through; write at least 1");
            }
        }
        for (key, value) in [
            ("tls.handshake_timeout", tls.handshake_timeout),
            ("tls.header_read_timeout", tls.header_read_timeout),
            ("broker.publish_timeout", broker.publish_timeout),
            ("broker.amqp.connect_timeout", broker.amqp.connect_timeout),
            ("store.postgres.patience", store.postgres.patience),
            ("frontend.body_timeout", frontend.body_timeout),
            ("frontend.request_timeout", frontend.request_timeout),
            ("frontend.wait_poll", frontend.wait_poll),
            ("frontend.idempotency_keep", frontend.idempotency_keep),
            ("frontend.statistics_window", frontend.statistics_window),
            ("signer.operation_limit", signer.operation_limit),
            ("signer.heartbeat", signer.heartbeat),
            ("signer.sweep", signer.sweep),
            ("signer.clock_limit", signer.clock_limit),
            ("registry.poll", registry.poll),
            ("registry.enrolment", registry.enrolment),
            ("shutdown.grace", shutdown.grace),
        ] {
            if value.is_zero() {
                return refuse(key, "must be longer than nothing; write for example \"1s\"");
            }
        }
        if !(1000..=4000).contains(&store.wal_autocheckpoint) {
            return refuse("store.wal_autocheckpoint", "write 1000 to 4000 pages");
        }
        if frontend.accept_batch > store.commit_rows {
            return refuse("frontend.accept_batch", "is over store.commit_rows; write that at most");
        }
        if frontend.waiting > tls.connections {
            return refuse(
                "frontend.waiting",
                "is over tls.connections, so that those who wait would leave nobody a connection; write that at most",
            );
        }
        if signer.lease < signer.heartbeat * 3 {
            return refuse(
                "signer.lease",
                "must be at least three times signer.heartbeat, or a busy signer loses its jobs",
            );
        }
        signer.breaker.check()?;
        if signer.stand_down_percent > 100 {
            return refuse("signer.stand_down_percent", "write 0 to 100");
        }
        if lanes.account_share.is_nan() || lanes.account_share <= 0.0 || lanes.account_share > 1.0 {
            return refuse("lanes.account_share", "write a number over 0 and at most 1");
        }
        if tokens.hvca_life <= Duration::from_mins(10) {
            return refuse(
                "tokens.hvca_life",
                "clients renew at ten minutes; write more than \"10m\"",
            );
        }
        if tokens.key_life < tokens.hvca_life * 2 {
            return refuse("tokens.key_life", "must be at least twice tokens.hvca_life");
        }
        if registry.silence < registry.poll * 3 {
            return refuse("registry.silence", "must be at least three times registry.poll");
        }
        if !place.public_url.starts_with("http://") || place.public_url.len() < 8 || place.public_url.ends_with('/') {
            return refuse(
                "place.public_url",
                "must begin with http:// and have no slash at the end: CRL and OCSP are fetched without TLS",
            );
        }
        if !(0.0..=1.0).contains(&telemetry.trace_ratio) {
            return refuse("telemetry.trace_ratio", "must be from 0 to 1");
        }
        let endpoint = &telemetry.otlp_endpoint;
        if !endpoint.is_empty() && !endpoint.starts_with("http://") {
            return refuse(
                "telemetry.otlp_endpoint",
                "must begin with http://: run a collector on this host, and let it speak TLS to others",
            );
        }
        parse_filter("telemetry.filter", &telemetry.filter)
            .map_err(|e| ("telemetry.filter".to_owned(), e.to_string()))?;
        self.check_engines()?;
        self.check_node()
    }

    fn check_engines(&self) -> Result<(), Refusal> {
        if self.store.engine == StoreEngine::Postgres {
            check_postgres(&self.store.postgres)?;
        }
        if self.broker.engine == BrokerEngine::Amqp {
            check_amqp(&self.broker.amqp)?;
        }
        token::check(&self.token)
    }

    /// Whether this process can do its part with what it is given.
    fn check_node(&self) -> Result<(), Refusal> {
        let node = &self.node;
        for url in &node.control_urls {
            if !url.starts_with("https://") || url.ends_with('/') {
                return refuse(
                    "node.control_urls",
                    "write https://host:port, without a slash at the end",
                );
            }
        }
        let role = node.role.as_str();
        if node.role == NodeRole::All {
            return if self.store.engine != StoreEngine::Sqlite || self.broker.engine != BrokerEngine::Embedded {
                refuse(
                    "node.role",
                    "one process for everything runs on sqlite and embedded; say which process this is: frontend, signer or control",
                )
            } else if self.token.iter().any(|token| token.name().as_str() == OWN_TOKEN) {
                refuse(
                    "token.name",
                    format!(
                        "one process for everything has a token of its own that is called {OWN_TOKEN}; give this one another name, or say \
                         node.role"
                    ),
                )
            } else {
                Ok(())
            };
        }
        if node.id().is_none() {
            return refuse(
                "node.id",
                format!("a {role} needs a name unlike any other's; write for example \"{role}-1\""),
            );
        }
        if self.store.engine != StoreEngine::Postgres {
            return refuse(
                "store.engine",
                format!("sqlite is for one process alone; a {role} shares its ledger with others: write \"postgres\""),
            );
        }
        if node.role != NodeRole::Control {
            if self.broker.engine != BrokerEngine::Amqp {
                return refuse(
                    "broker.engine",
                    format!("embedded stays within one process; a {role} speaks to others: write \"amqp\""),
                );
            }
            if node.control_urls.is_empty() {
                return refuse(
                    "node.control_urls",
                    format!("a {role} is enrolled and renewed by control; write [\"https://host:8444\"]"),
                );
            }
        }
        match node.role {
            NodeRole::Signer if self.token.is_empty() => refuse(
                "token",
                "a signer without a token can sign nothing; add [[token]] with name, kind and where its keys are",
            ),
            NodeRole::Frontend if !self.token.is_empty() => {
                refuse("token", "a frontend never touches keys; remove [[token]]")
            }
            _ => Ok(()),
        }
    }
}

fn check_postgres(postgres: &Postgres) -> Result<(), Refusal> {
    for (key, value) in [
        ("store.postgres.host", &postgres.host),
        ("store.postgres.database", &postgres.database),
        ("store.postgres.user", &postgres.user),
    ] {
        if value.is_empty() {
            return refuse(key, "is empty; say which");
        }
    }
    for (key, value) in [
        ("store.postgres.writers", postgres.writers),
        ("store.postgres.readers", postgres.readers),
    ] {
        if !(1..=64).contains(&value) {
            return refuse(key, "write 1 to 64");
        }
    }
    if postgres.commit_gap > Duration::from_millis(100) {
        return refuse("store.postgres.commit_gap", "write at most \"100ms\"");
    }
    if !(Duration::from_millis(100)..=Duration::from_secs(10)).contains(&postgres.statement_limit) {
        return refuse("store.postgres.statement_limit", "write \"100ms\" to \"10s\"");
    }
    check_identity(
        "store.postgres",
        &postgres.certificate_file,
        &postgres.key_file,
        &postgres.ca_file,
    )
}

fn check_amqp(amqp: &Amqp) -> Result<(), Refusal> {
    let is_address = |address: &str| {
        let parts = address.rsplit_once(':');
        parts.is_some_and(|(host, port)| !host.is_empty() && !host.contains(['@', '/']) && port.parse::<u16>().is_ok())
    };
    if amqp.addresses.is_empty() || !amqp.addresses.iter().all(|address| is_address(address)) {
        return refuse(
            "broker.amqp.addresses",
            "write [\"host:port\"]; the user stands in broker.amqp.user and the password in the file of broker.amqp.password_file",
        );
    }
    if !(1..=600).contains(&amqp.heartbeat.as_secs()) {
        return refuse("broker.amqp.heartbeat", "write \"1s\" to \"600s\"");
    }
    check_identity("broker.amqp", &amqp.certificate_file, &amqp.key_file, &amqp.ca_file)?;
    if !given(&amqp.certificate_file) && !given(&amqp.password_file) {
        return refuse(
            "broker.amqp.password_file",
            "neither a password nor a client certificate is given; name one of the two files",
        );
    }
    Ok(())
}

/// A certificate comes with its key, and over an encrypted connection.
fn check_identity(section: &str, certificate: &Path, key: &Path, ca: &Path) -> Result<(), Refusal> {
    let refuse = |name, problem: &str| refuse(&format!("{section}.{name}"), problem);
    match (given(certificate), given(key), given(ca)) {
        (true, false, _) => refuse("key_file", "the client certificate has no key; name its file"),
        (false, true, _) => refuse("certificate_file", "the key has no client certificate; name its file"),
        (true, true, false) => refuse(
            "ca_file",
            "a client certificate needs an encrypted connection; name the CA of the server",
        ),
        _ => Ok(()),
    }
}

pub(super) fn given(path: &Path) -> bool {
    !path.as_os_str().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINES: &str =
        "[store]\nengine = \"postgres\"\n[broker]\nengine = \"amqp\"\n[broker.amqp]\npassword_file = \"p\"\n";
    const TOKEN: &str = "[[token]]\nname = \"soft\"\nkind = \"soft\"\ndirectory = \"k\"\npassphrase_file = \"p\"\n";

    fn node(role: &str) -> String {
        format!("[node]\nrole = \"{role}\"\nid = \"n-1\"\ncontrol_urls = [\"https://control:8444\"]\n")
    }

    #[test]
    fn a_process_is_told_what_it_cannot_do_without() {
        let parse = |text: &str| Config::parse(Path::new("b.toml"), text);
        for whole in [
            node("frontend") + ENGINES,
            node("signer") + ENGINES + TOKEN,
            node("control") + ENGINES,
            node("control") + ENGINES + TOKEN,
            TOKEN.replace("name = \"soft\"", "name = \"other\""),
            String::new(),
        ] {
            parse(&whole).unwrap();
        }
        for (text, key) in [
            (ENGINES.to_owned(), "node.role"),
            (TOKEN.to_owned(), "token.name"),
            ("[node]\nrole = \"frontend\"\n".to_owned() + ENGINES, "node.id"),
            (
                "[node]\nrole = \"frontend\"\nid = \"Not A Name\"\n".to_owned() + ENGINES,
                "node.id",
            ),
            (
                "[node]\nrole = \"frontend\"\nid = \"f-1\"\n".to_owned() + ENGINES,
                "node.control_urls",
            ),
            (node("frontend").replace("https", "http") + ENGINES, "node.control_urls"),
            (node("frontend"), "store.engine"),
            (node("control"), "store.engine"),
            (node("frontend") + "[store]\nengine = \"postgres\"", "broker.engine"),
            (node("frontend") + ENGINES + TOKEN, "token"),
            (node("signer") + ENGINES, "token"),
            (node("signer") + ENGINES + TOKEN + TOKEN, "token.name"),
            (
                node("signer") + ENGINES + &TOKEN.replace("\"k\"", "\"\""),
                "token.directory",
            ),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("b.toml: {key}: ")), "{text}\n{error}");
        }
    }

    #[test]
    fn the_way_to_an_engine_is_whole_or_refused() {
        for (extra, key) in [
            ("[store.postgres]\nhost = \"\"", "store.postgres.host"),
            ("[store.postgres]\nwriters = 0", "store.postgres.writers"),
            ("[store.postgres]\nreaders = 65", "store.postgres.readers"),
            ("[store.postgres]\ncommit_gap = \"1s\"", "store.postgres.commit_gap"),
            (
                "[store.postgres]\nstatement_limit = \"1m\"",
                "store.postgres.statement_limit",
            ),
            ("[store.postgres]\ncertificate_file = \"c\"", "store.postgres.key_file"),
            ("[store.postgres]\nkey_file = \"c\"", "store.postgres.certificate_file"),
            (
                "[store.postgres]\ncertificate_file = \"c\"\nkey_file = \"k\"",
                "store.postgres.ca_file",
            ),
        ] {
            let text = node("frontend") + ENGINES + extra;
            let error = Config::parse(Path::new("b.toml"), &text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("b.toml: {key}: ")), "{extra}\n{error}");
        }
        for (amqp, key) in [
            ("", "broker.amqp.password_file"),
            ("addresses = []", "broker.amqp.addresses"),
            ("addresses = [\"mq\"]", "broker.amqp.addresses"),
            ("addresses = [\"user:secret@mq:5672\"]", "broker.amqp.addresses"),
            ("heartbeat = \"1ms\"", "broker.amqp.heartbeat"),
            ("certificate_file = \"c\"", "broker.amqp.key_file"),
            ("certificate_file = \"c\"\nkey_file = \"k\"", "broker.amqp.ca_file"),
            ("own_lanes = 0\npassword_file = \"p\"", "broker.amqp.own_lanes"),
        ] {
            let text = node("frontend") + &ENGINES.replace("password_file = \"p\"", amqp);
            let error = Config::parse(Path::new("b.toml"), &text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("b.toml: {key}: ")), "{amqp}\n{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
