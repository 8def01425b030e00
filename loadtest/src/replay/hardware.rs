//! Tokens of SoftHSM for a replay, and whoever else than Bulkhead works with them: the key ceremony, and the reference.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hsm_faults::SoftHsm;
use keys::{
    Keys,
    pkcs11::{Options, Pkcs11Token, Program},
};
use tests::Deployment;

/// The tokens, by label and by name.
pub const TOKENS: [&str; 2] = ["hsm-1", "hsm-2"];
/// What one operation may take.
const OPERATION_LIMIT: Duration = Duration::from_secs(5);
/// What opening may take.
const OPENED: Duration = Duration::from_secs(30);

/// The tables that tell Bulkhead of tokens, used through `module`.
pub fn configuration(hsm: &SoftHsm, module: &Path, labels: &[&str]) -> String {
    let tables = labels.iter().map(|label| {
        format!(
            "[[token]]\nname = \"{label}\"\nkind = \"pkcs11\"\nmodule = \"{}\"\nlabel = \"{label}\"\npin_file = \"{}\"\n",
            module.display(),
            hsm.pin_file().display()
        )
    });
    tables.collect()
}

/// A connection to a token that is nobody else's, through a process of its own. It is tried until it works: SoftHSM, opened by several
/// processes at a time, sometimes fails in one of them.
pub fn open(hsm: &SoftHsm, label: &str) -> Result<Arc<dyn Keys>> {
    let (variable, value) = hsm.environment();
    let options = Options {
        module: SoftHsm::module(),
        label: Some(label.to_owned()),
        serial: None,
        pin_file: hsm.pin_file(),
        refused_file: hsm.path("refused"),
        sessions: 4,
        operation_limit: OPERATION_LIMIT,
        slow_limit: Duration::from_mins(1),
    };
    let program = Program {
        path: "/usr/bin/env".into(),
        arguments: vec![
            format!("{variable}={}", value.display()).into(),
            Deployment::program()?.into(),
            "token-worker".into(),
            label.into(),
        ],
    };
    let token = Pkcs11Token::new(label.parse()?, options, program);
    let until = Instant::now() + OPENED;
    while let Err(error) = token.canary() {
        ensure!(Instant::now() < until, error);
        thread::sleep(Duration::from_millis(100));
    }
    Ok(Arc::new(token))
}

/// A key ceremony: these keys are gone for ever.
pub fn destroy(hsm: &SoftHsm, keys: &[(usize, String)]) -> Result<()> {
    for (token, label) in TOKENS.iter().enumerate() {
        let ceremony = open(hsm, label)?;
        for (_, key) in keys.iter().filter(|(on, _)| *on == token) {
            ceremony.destroy(key).with_context(|| format!("key {key}"))?;
        }
    }
    Ok(())
}
