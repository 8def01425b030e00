//! How a command ends when it does not end well: what to say, what to do next, and the exit code.

use std::{fmt, process::ExitCode};

/// Exit codes. They are part of the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The program, the network or the service failed.
    Failed = 1,
    /// An argument or the configuration is wrong.
    Usage = 2,
    /// Refused: by policy, by state, or for lack of a role.
    Refused = 4,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    what: String,
    next: Option<String>,
}

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// The program, the network or the service failed.
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// An argument or the configuration is wrong.
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Refused.
    pub fn refused(what: impl fmt::Display) -> Self {
        Self::new(Exit::Refused, what)
    }

    fn new(exit: Exit, what: impl fmt::Display) -> Self {
        // `{:#}` prints the causes of an `anyhow::Error` in one line, and changes nothing for others.
        let what = format!("{what:#}");
        Self { exit, what, next: None }
    }

    /// What to do about it.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// What happened, without what to do about it.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The process's exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.what)?;
        match &self.next {
            Some(next) => write!(f, "\n  next: {next}"),
            None => Ok(()),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happened_and_what_to_do_next() {
        let failure = Failure::refused("issuer ca-1 is disabled").next("bulkhead issuer enable ca-1 --reason TEXT");
        assert_eq!(
            failure.to_string(),
            "error: issuer ca-1 is disabled\n  next: bulkhead issuer enable ca-1 --reason TEXT"
        );
        let cause = anyhow::anyhow!("connection refused").context("cannot reach 127.0.0.1:1");
        assert_eq!(
            Failure::from(cause).to_string(),
            "error: cannot reach 127.0.0.1:1: connection refused"
        );
    }
}
