//! What clients that wait are told while their issuer's token is away.

use anyhow::Result;
use hsm_faults::SoftHsm;
use tests::{
    Key,
    waiting::{Party, only_those_that_wait_are_told},
};

use super::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_wait_for_a_key_that_is_gone_are_told_at_once_and_only_they() -> Result<()> {
    let hsm = SoftHsm::new(&[]);
    // Each token's directory is told from the other's by when it was made.
    let first = hsm.initialise("first");
    hsm.initialise("second");
    let world = World::start(&hsm, &SoftHsm::module(), &[])?;
    let broken = Party {
        client: world.issuer("broken", "first", "P-256").await?,
        key: Key::p256()?,
    };
    let other = Party {
        client: world.issuer("other", "second", "P-256").await?,
        key: Key::p256()?,
    };
    // Beside the tokens, a directory would be another token.
    only_those_that_wait_are_told(&broken, &other, &first, &hsm.path("aside")).await?;
    world.stop()
}
