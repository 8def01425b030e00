//! What a replay needs of the machine, by the names of Debian's packages.

use std::{fmt, path::Path};

/// What one package brings, by which it is told that it is there.
const SIGNS: [(Package, &str); 4] = [
    (Package::SoftHsm, "/usr/lib/softhsm/libsofthsm2.so"),
    (Package::SoftHsm, "/usr/bin/softhsm2-util"),
    (Package::RabbitMq, "/usr/lib/rabbitmq/bin/rabbitmq-server"),
    (Package::Postgres, "/usr/lib/postgresql"),
];

/// A package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// Tokens.
    SoftHsm,
    /// The broker.
    RabbitMq,
    /// The ledger.
    Postgres,
}

impl Package {
    const fn name(self) -> &'static str {
        match self {
            Self::SoftHsm => "softhsm2",
            Self::RabbitMq => "rabbitmq-server",
            Self::Postgres => "postgresql",
        }
    }
}

/// These packages are not installed.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing(Vec<&'static str>);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.join(" ");
        write!(
            f,
            "not installed: {}; install with `apt-get install {names}`",
            self.0.join(", ")
        )
    }
}

impl std::error::Error for Missing {}

/// Whether all of these are installed.
pub fn check(packages: &[Package]) -> Result<(), Missing> {
    check_in(Path::new("/"), packages)
}

fn check_in(root: &Path, packages: &[Package]) -> Result<(), Missing> {
    let is_missing = |package: &Package| {
        SIGNS
            .iter()
            .any(|(of, sign)| of == package && !root.join(sign.trim_start_matches('/')).exists())
    };
    let missing: Vec<_> = packages
        .iter()
        .filter(|package| is_missing(package))
        .map(|package| package.name())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Missing(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_and_nothing_else() {
        let empty = tempfile::tempdir().unwrap();
        let all = [Package::SoftHsm, Package::RabbitMq, Package::Postgres];
        let missing = check_in(empty.path(), &all).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "not installed: softhsm2, rabbitmq-server, postgresql; install with `apt-get install softhsm2 rabbitmq-server postgresql`"
        );
        std::fs::create_dir_all(empty.path().join("usr/lib/postgresql")).unwrap();
        assert_eq!(check_in(empty.path(), &[Package::Postgres]), Ok(()));
        assert_eq!(check_in(empty.path(), &[]), Ok(()));
    }
}
