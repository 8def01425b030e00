//! Reading and checking the file. Every error names the file, the key and the remedy.

use std::path::{Path, PathBuf};

use super::{Config, NodeRole};

/// A configuration for such a process to begin with. That of everything in one process has every key with its default and what it
/// means; the others have what such a process must be told.
pub const fn sample(role: NodeRole) -> &'static str {
    match role {
        NodeRole::All => include_str!("sample.toml"),
        NodeRole::Frontend => include_str!("sample-frontend.toml"),
        NodeRole::Signer => include_str!("sample-signer.toml"),
        NodeRole::Control => include_str!("sample-control.toml"),
    }
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
        let sampled = parse(sample(NodeRole::All)).unwrap();
        assert_eq!(sampled, Config::default());
        assert_eq!(parse("").unwrap(), Config::default());
        let written: toml::Table = toml::from_str(sample(NodeRole::All)).unwrap();
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        missing("", &defaults, &written);
    }

    /// Every key of the defaults is written down; a list of tables has only an example.
    fn missing(path: &str, defaults: &toml::Table, written: &toml::Table) {
        for (key, value) in defaults {
            let path = format!("{path}{key}");
            if key == "token" {
                assert!(sample(NodeRole::All).contains("# [[token]]"));
                continue;
            }
            let there = written.get(key);
            assert!(there.is_some(), "{path} is missing in the sample");
            if let (toml::Value::Table(value), Some(toml::Value::Table(there))) = (value, there) {
                missing(&format!("{path}."), value, there);
            }
        }
    }

    #[test]
    fn the_sample_of_each_process_is_one_for_that_process() {
        for role in [NodeRole::Frontend, NodeRole::Signer, NodeRole::Control] {
            let sampled = parse(sample(role)).unwrap();
            assert_eq!(sampled.node.role, role);
            assert!(sample(role).contains("bulkhead config sample"), "{}", role.as_str());
        }
    }

    #[test]
    fn every_key_of_every_sample_is_explained_above_it() {
        for role in [NodeRole::All, NodeRole::Frontend, NodeRole::Signer, NodeRole::Control] {
            let mut before = "";
            for line in sample(role).lines() {
                let explained = before.starts_with('#');
                if line.starts_with('[') {
                    assert!(explained, "{line}");
                } else if line.contains(" = ") && !line.starts_with('#') {
                    assert!(explained || line.starts_with(|c: char| "irb".contains(c)), "{line}");
                }
                before = line;
            }
        }
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
            ("[telemetry]\ntrace_ratio = 1.5", "telemetry.trace_ratio"),
            (
                "[telemetry]\notlp_endpoint = \"collector:4318\"",
                "telemetry.otlp_endpoint",
            ),
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
