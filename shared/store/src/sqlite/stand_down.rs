//! Permits to stand down.

use domain::{
    id::Incarnation,
    stand_down::{Permit, decide},
    time::Timestamp,
};

use super::{column::Column, fault::Fault, ledger::Ledger, sql::readable};
use crate::rules::holder;

impl Ledger<'_> {
    /// Gives a permit, or takes it away.
    pub(super) fn stand_down(&mut self, signer: &Incarnation, percent: u8) -> Result<Permit, Fault> {
        let live = readable(
            self.connection,
            "SELECT announcement, stands_down FROM lease WHERE lease_until > ?1",
            [Column(self.now)],
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?)),
        )?;
        let live: Vec<_> = live
            .into_iter()
            .filter_map(|(announcement, stands_down)| holder(&announcement, stands_down))
            .collect();
        let permit = decide(signer, &live, percent);
        self.set_stands_down(signer, permit == Permit::Granted, self.now)?;
        Ok(permit)
    }

    /// Takes a permit back.
    pub(super) fn stand_up(&mut self, signer: &Incarnation) -> Result<(), Fault> {
        self.set_stands_down(signer, false, self.now)
    }

    fn set_stands_down(&self, signer: &Incarnation, stands_down: bool, now: Timestamp) -> Result<(), Fault> {
        self.execute(
            "UPDATE lease SET stands_down = ?2 WHERE incarnation = ?1 AND lease_until > ?3",
            (Column(signer), stands_down, Column(now)),
        )
        .map(drop)
    }
}
