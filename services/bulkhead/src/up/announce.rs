//! What is printed when everything is ready.

use std::path::PathBuf;

use serde::Serialize;

use super::self_check::Checked;
use crate::output::fields;

/// Everything that a person in front of the terminal wants to know, without secrets.
#[derive(Debug, Serialize)]
pub(super) struct Ready {
    /// The data directory.
    pub(super) data: PathBuf,
    /// The context file.
    pub(super) context: PathBuf,
    /// The certificate API.
    pub(super) url: String,
    /// The operators' API.
    pub(super) admin_url: String,
    /// Metrics.
    pub(super) metrics_url: String,
    /// The registry's revision in force.
    pub(super) revision: u64,
    /// What came of the self-check.
    pub(super) self_check: Checked,
    /// A shell script that gets a certificate with curl and OpenSSL.
    pub(super) commands: String,
}

impl Ready {
    /// For people.
    pub(super) fn text(&self) -> String {
        let self_check = match &self.self_check {
            Checked::Issued {
                serial,
                issuer,
                milliseconds,
            } => format!("certificate {serial} under {issuer} in {milliseconds} ms"),
            Checked::NothingToCheck => {
                "none: no issuer may issue now (see `bulkhead issuer list`, `bulkhead lane list`)".into()
            }
            Checked::Failed { reasons } => format!("FAILED\n{}", reasons.join("\n")),
        };
        let mut text = fields([
            ("Bulkhead is ready", String::from("Ctrl-C stops it")),
            ("  certificate API", self.url.clone()),
            ("  operators' API", self.admin_url.clone()),
            ("  metrics", self.metrics_url.clone()),
            ("  context file", self.context.display().to_string()),
            ("  registry", format!("revision {}", self.revision)),
            ("  self-check", self_check),
        ]);
        if !self.commands.is_empty() {
            text.push_str("\nA certificate with curl and OpenSSL, in a shell:\n\n");
            text.push_str(&self.commands);
        }
        text + "\nThe same with this program:\n\n" + &self.own_command()
    }

    fn own_command(&self) -> String {
        format!(
            "bulkhead cert issue --context {} --new-key P-256 --key-out key.pem --cn www.example.com --out cert.pem\n",
            self.context.display()
        )
    }
}
