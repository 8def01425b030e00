//! Reading and checking the file. Every error names the file, the key and the remedy.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::Config;
use crate::telemetry::parse_filter;

/// A whole configuration with the defaults and what they mean.
pub const fn sample() -> &'static str {
    include_str!("sample.toml")
}

/// Why a configuration cannot be used. Processes that meet it exit with 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read ({detail}); give an existing file with --config, or none for the defaults", file = file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// It is not TOML.
    #[error("{file}:{line}: not TOML: {detail}", file = file.display())]
    NotToml {
        /// Which file.
        file: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// A key that nobody knows.
    #[error("{file}: {key}: unknown key; {remedy}", file = file.display())]
    UnknownKey {
        /// Which file.
        file: PathBuf,
        /// Path of the key.
        key: String,
        /// What to do.
        remedy: String,
    },
    /// A value that cannot be.
    #[error("{file}: {key}: {problem}", file = file.display())]
    Value {
        /// Which file.
        file: PathBuf,
        /// Path of the key.
        key: String,
        /// What is wrong and what to write instead.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|e| ConfigError::Unreadable {
            file: file.into(),
            detail: e.to_string(),
        })?;
        Self::parse(file, &text)
    }

    /// Reads and checks a text; `file` is only for errors.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let not_toml = |e: toml::de::Error| ConfigError::NotToml {
            file: file.into(),
            line: e
                .span()
                .map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count()),
            detail: e.message().to_owned(),
        };
        let table: toml::Table = toml::from_str(text).map_err(not_toml)?;
        let config: Self = serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|error| {
            let path = error.path().to_string();
            unusable(file, &path, error.inner().message())
        })?;
        config.check().map_err(|(key, problem)| ConfigError::Value {
            file: file.into(),
            key,
            problem,
        })?;
        Ok(config)
    }

    /// Refuses what contradicts itself: the key, and what is wrong with it.
    pub fn check(&self) -> Result<(), (String, String)> {
        let refuse = |key: &str, problem: &str| Err((key.to_owned(), problem.to_owned()));
        let Self {
            place,
            tls,
            store,
            broker,
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
        parse_filter("telemetry.filter", &telemetry.filter)
            .map_err(|e| ("telemetry.filter".to_owned(), e.to_string()))?;
        Ok(())
    }
}

fn unusable(file: &Path, path: &str, message: &str) -> ConfigError {
    let file = file.to_owned();
    let Some((name, rest)) = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split_once('`'))
    else {
        return ConfigError::Value {
            file,
            key: path.to_owned(),
            problem: message.to_owned(),
        };
    };
    let parent = path.strip_suffix(name).unwrap_or(path).trim_matches('.');
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let nearest = known.iter().map(|known| (distance(name, known), known)).min();
    let remedy = match nearest {
        Some((distance, known)) if distance <= 3.max(name.len() / 3) => format!("did you mean {known}?"),
        _ => format!("known here are {}", known.join(", ")),
    };
    let key = if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    };
    ConfigError::UnknownKey { file, key, remedy }
}

/// Edits that lead from one text to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("b.toml"), text)
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_sample_is_the_default_and_leaves_no_key_out() {
        let sampled = parse(sample()).unwrap();
        assert_eq!(sampled, Config::default());
        assert_eq!(parse("").unwrap(), Config::default());
        let written: toml::Table = toml::from_str(sample()).unwrap();
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        for (section, keys) in &defaults {
            for key in keys.as_table().unwrap().keys() {
                let there = written[section].as_table().unwrap().contains_key(key);
                assert!(there, "{section}.{key} is missing in the sample");
            }
        }
    }

    #[test]
    fn every_key_of_the_sample_is_explained_above_it() {
        let mut before = "";
        let mut section_explained = false;
        for line in sample().lines() {
            if line.starts_with('[') {
                section_explained = before.starts_with('#');
                assert!(section_explained, "{line}");
            } else if line.contains(" = ") && !line.starts_with('#') {
                assert!(
                    before.starts_with('#') || line.starts_with(|c: char| "irb".contains(c)),
                    "{line}"
                );
            }
            before = line;
        }
        assert!(section_explained);
    }

    #[test]
    fn an_unknown_key_names_file_key_and_remedy() {
        assert_eq!(
            error("[signer]\ntheads = 3"),
            "b.toml: signer.theads: unknown key; did you mean threads?"
        );
        assert_eq!(
            error("[singer]\nthreads = 3"),
            "b.toml: singer: unknown key; did you mean signer?"
        );
        let far = error("[shutdown]\nmoonlight = 3");
        assert_eq!(far, "b.toml: shutdown.moonlight: unknown key; known here are grace");
    }

    #[test]
    fn a_wrong_value_names_file_and_key() {
        for (text, key) in [
            ("[signer]\nlease = 3", "signer.lease"),
            ("[signer]\nlease = \"soon\"", "signer.lease"),
            ("[signer]\nthreads = -1", "signer.threads"),
            ("[place]\nlisten = \"here\"", "place.listen"),
            ("[telemetry]\nformat = \"xml\"", "telemetry.format"),
            ("[tls]\nconnections = 0", "tls.connections"),
            ("[tls]\nhandshake_timeout = \"0s\"", "tls.handshake_timeout"),
            ("[signer]\nlease = \"1s\"", "signer.lease"),
            ("[frontend]\nwaiting = 5000", "frontend.waiting"),
            ("[lanes]\naccount_share = 0.0", "lanes.account_share"),
            ("[lanes]\naccount_share = nan", "lanes.account_share"),
            ("[tokens]\nhvca_life = \"10m\"", "tokens.hvca_life"),
            ("[store]\nwal_autocheckpoint = 10", "store.wal_autocheckpoint"),
            ("[place]\npublic_url = \"https://x\"", "place.public_url"),
            ("[place]\npublic_url = \"http://x/\"", "place.public_url"),
            ("[telemetry]\nfilter = \"x=loud\"", "telemetry.filter"),
        ] {
            let error = error(text);
            assert!(error.starts_with(&format!("b.toml: {key}: ")), "{text}: {error}");
        }
    }

    #[test]
    fn broken_toml_names_the_line() {
        assert!(
            error("[place]\n\nlisten = ").starts_with("b.toml:3: not TOML: "),
            "{}",
            error("[place]\n\nlisten = ")
        );
        let missing = Config::load(Path::new("/nonexistent/b.toml")).unwrap_err().to_string();
        assert!(missing.starts_with("/nonexistent/b.toml: cannot be read"), "{missing}");
    }

    #[test]
    fn an_account_may_hold_its_share_of_a_lane() {
        let lanes = Config::default().lanes;
        assert_eq!(lanes.share(domain::lane::Class::Interactive), 5000);
        assert_eq!(
            super::super::Lanes {
                interactive: 1,
                ..lanes
            }
            .share(domain::lane::Class::Interactive),
            1
        );
    }
}
