//! The contract that every adapter keeps, and keys that were made with other tools.

use domain::{
    failure::KeysFailure,
    key::{KeyType, SignatureAlgorithm},
};
use keys::{Keys, suite};

use crate::hsm::Hsm;

#[test]
fn the_contract_is_kept() {
    let hsm = Hsm::new();
    let token = hsm.open();
    for (what, check) in suite::CONTRACT {
        eprintln!("{what}");
        check(&token);
    }
}
