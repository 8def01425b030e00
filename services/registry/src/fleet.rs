//! What runs: every process by its lease and what it last announced.

use wire::operate::{BreakerDocument, FleetDocument};

use crate::{Registry, RegistryError};

impl Registry {
    /// Every process whose lease has not ended longer than a minute ago, by its name.
    pub async fn fleet(&self) -> Result<Vec<FleetDocument>, RegistryError> {
        let head = self.store.head().await?;
        let mut fleet: Vec<FleetDocument> = self
            .store
            .incarnations()
            .await?
            .into_iter()
            .map(|announced| {
                let said = announced.announcement;
                let breakers = said.breakers.into_iter();
                FleetDocument {
                    incarnation: said.incarnation.to_string(),
                    node: said.incarnation.node,
                    role: said.role,
                    alive: announced.lease_until > head.now,
                    version: said.version,
                    revision: said.revision,
                    behind: head.revision.saturating_sub(said.revision),
                    keys: said.issuers.len() as u64,
                    in_flight: said.in_flight,
                    breakers: breakers
                        .map(|(issuer, standing)| BreakerDocument { issuer, standing })
                        .collect(),
                    tokens_out: said.tokens_out,
                    backs_off: said.backs_off,
                    stands_down: said.stands_down,
                    since: said.started_at,
                    seen: announced.seen,
                    clock_offset_ms: said.clock_offset_ms,
                }
            })
            .collect();
        fleet.sort_by_key(|process| (process.node.clone(), process.since));
        Ok(fleet)
    }
}
