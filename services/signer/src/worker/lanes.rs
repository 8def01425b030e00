//! Which lanes the worker serves, from which inbox, and what the world is told of each.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use domain::{dispatch::Event, id::IssuerId, lane::Lane};
use tokio::time::timeout;

use super::{BROKER_TIMEOUT, REOPEN_PAUSE, Worker};
use crate::{heartbeat::Said, keyring::Keyring};

impl Worker {
    /// Serves the lanes of the keys that are here.
    pub(super) async fn keys_changed(&mut self) {
        let keyring = self.keyring.load_full();
        let lanes = keyring.lanes(|lane| self.broker.carrier(lane));
        let names: BTreeSet<Lane> = lanes.iter().map(|(lane, _)| lane.clone()).collect();
        let before = std::mem::replace(&mut self.state.lanes, names);
        if self.state.inbox.is_none() || !before.is_subset(&self.state.lanes) {
            self.open_inbox().await;
        } else if before.len() < self.state.lanes.len() {
            self.extend_inbox(&before).await;
        }
        self.happen(Event::Served(lanes)).await;
        self.list_conditions(&keyring);
    }

    pub(super) async fn open_inbox(&mut self) {
        self.state.inbox = None;
        self.state.inboxes += 1;
        self.state.put_off.clear();
        let lanes: Vec<Lane> = self.state.lanes.iter().cloned().collect();
        let served = self.broker.serve(&self.incarnation, &lanes, self.config.prefetch);
        match timeout(BROKER_TIMEOUT, served).await {
            Ok(Ok(inbox)) => {
                self.state.inbox = Some(inbox);
                self.state.reopen_at = None;
            }
            Ok(Err(error)) => self.closed(&error.to_string()),
            Err(_) => self.closed("no answer in time"),
        }
        self.happen(Event::InboxOpened).await;
    }

    /// Serves the lanes that are new as well. Thousands of others shall not be served anew for each of them.
    async fn extend_inbox(&mut self, before: &BTreeSet<Lane>) {
        let Some(inbox) = &mut self.state.inbox else { return };
        let new: Vec<Lane> = self.state.lanes.difference(before).cloned().collect();
        let problem = match timeout(BROKER_TIMEOUT, inbox.add(&new)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.state.inbox = None;
        self.closed(&problem);
        self.happen(Event::InboxOpened).await;
    }

    fn closed(&mut self, reason: &str) {
        tracing::warn!(reason, "no inbox on the broker: jobs are claimed from the ledger");
        self.state.reopen_at = Some(Instant::now() + REOPEN_PAUSE);
    }

    /// A condition for each lane that some account uses and whose key is here, or should be.
    fn list_conditions(&mut self, keyring: &Keyring) {
        let snapshot = self.applied.load().snapshot.clone();
        let used = snapshot.accounts.values().filter_map(|account| {
            let class = snapshot.profiles.get(&account.profile)?.class;
            let issuer = account.issuer.clone();
            Some(Lane { issuer, class })
        });
        let used: BTreeSet<Lane> = used
            .filter(|lane| keyring.get(&lane.issuer).is_some() || keyring.missing().contains_key(&lane.issuer))
            .collect();
        self.state.conditions.retain(|lane, _| used.contains(lane));
        for lane in used {
            let condition = self
                .state
                .conditions
                .entry(lane.clone())
                .or_insert_with(|| self.health.lane("signer", lane.clone()));
            match keyring.missing().get(&lane.issuer) {
                Some(reason) => condition.not_ready(reason.clone()),
                None => condition.ready(),
            }
        }
        self.state.shut.clear();
    }

    /// Lanes whose keys fail say so, and the next heartbeat tells others.
    pub(super) fn show_health(&mut self) {
        let breakers = self.dispatcher.breakers();
        let status = self.dispatcher.status();
        let said = Said {
            breakers: breakers
                .map(|(issuer, standing)| (issuer.clone(), standing.to_string()))
                .collect(),
            tokens_out: self.dispatcher.tokens_out().cloned().collect(),
            backs_off: status.backs_off,
            stands_down: status.stands_down,
        };
        let shut: BTreeSet<IssuerId> = said.breakers.iter().map(|(issuer, _)| issuer.clone()).collect();
        if **self.said.load() != said {
            self.said.store(Arc::new(said));
        }
        if shut == self.state.shut {
            return;
        }
        for (lane, condition) in &self.state.conditions {
            match (self.state.shut.contains(&lane.issuer), shut.contains(&lane.issuer)) {
                (false, true) => condition.not_ready("operations with this issuer's key fail: its breaker is open"),
                (true, false) => condition.ready(),
                (false, false) | (true, true) => {}
            }
        }
        self.state.shut = shut;
    }
}
