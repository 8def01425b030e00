//! Whether requests should be sent here, and what this front end knows of each lane. Told once a second, as it is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use domain::{
    issuer::{Role, Standing},
    lane::Lane,
    registry::Snapshot,
    time::{Clock, Timestamp},
};
use runtime::health::{Condition, Health};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::App;

const EVERY: Duration = Duration::from_secs(1);

/// How long a lane's last refusal is told.
const TROUBLE: Duration = Duration::from_secs(5);

/// How long a front end may be behind before it says so: applying a revision takes a moment.
const GRACE: Duration = Duration::from_secs(2);

/// How many lanes have a condition of their own.
const LANES: usize = 500;

/// What the store last said against lanes.
#[derive(Debug, Default)]
pub struct Troubles(Mutex<HashMap<Lane, (Instant, String)>>);

impl Troubles {
    /// The store refused a job of this lane for the lane's sake.
    pub fn refused(&self, lane: &Lane, reason: String) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.retain(|_, (at, _)| at.elapsed() < TROUBLE);
        if troubles.len() < LANES || troubles.contains_key(lane) {
            troubles.insert(lane.clone(), (Instant::now(), reason));
        }
    }

    fn of(&self, lane: &Lane) -> Option<String> {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, reason) = troubles.get(lane)?;
        (at.elapsed() < TROUBLE).then(|| reason.clone())
    }
}

/// The conditions of a front end.
#[derive(Debug)]
pub struct Readiness {
    health: Health,
    store: Condition,
    registry: Condition,
    clock: Condition,
    tokens: Condition,
    lanes: BTreeMap<Lane, Condition>,
    depths: Vec<(Lane, usize)>,
}

impl Readiness {
    /// Conditions that begin as not ready.
    pub fn new(health: &Health) -> Self {
        Self {
            health: health.clone(),
            store: health.part("frontend store"),
            registry: health.part("frontend registry"),
            clock: health.part("frontend clock"),
            tokens: health.part("frontend tokens"),
            lanes: BTreeMap::new(),
            depths: Vec::new(),
        }
    }

    /// Tells how things are, for ever.
    pub async fn run(mut self, app: App) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.tell(&app).await;
        }
    }

    async fn tell(&mut self, app: &App) {
        set(
            &self.store,
            app.presence
                .is_reachable()
                .then_some(())
                .ok_or("the store does not answer"),
        );
        let off = app
            .presence
            .clock_off()
            .map(|off| format!("this host's clock is {} ms off", off.as_millis()));
        set(&self.clock, off.map_or(Ok(()), Err));
        set(
            &self.tokens,
            app.tokens
                .can_mint()
                .then_some(())
                .ok_or("the key that signs tokens is not published"),
        );
        set(&self.registry, registry(app).await);
        self.lanes(app);
        self.gauges(app);
    }

    fn lanes(&mut self, app: &App) {
        let applied = app.applied.load();
        let lanes = lanes(&applied.snapshot, app.clock.now());
        self.lanes.retain(|lane, _| lanes.contains_key(lane));
        for (lane, standing) in lanes {
            let trouble = match standing {
                Standing::Good => app.troubles.of(&lane),
                Standing::Disabled => Some("the issuer is disabled".into()),
                Standing::Destroyed => Some("the issuer is destroyed".into()),
                Standing::Expired => Some("the issuer has expired".into()),
            };
            let health = &self.health;
            let told = self.lanes.entry(lane);
            let condition = told.or_insert_with_key(|lane| health.lane("frontend", lane.clone()));
            set(condition, trouble.map_or(Ok(()), Err));
        }
    }

    fn gauges(&mut self, app: &App) {
        let depths = app.admission.depths();
        app.metrics.depths(&self.depths, &depths);
        self.depths = depths;
        app.metrics.behind.set(i64::from(app.follower.behind().is_some()));
        let busy = app.work.taken();
        app.metrics.in_flight.set(i64::try_from(busy).unwrap_or(i64::MAX));
    }
}

fn set(condition: &Condition, state: Result<(), impl Into<String>>) {
    match state {
        Ok(()) => condition.ready(),
        Err(reason) => condition.not_ready(reason),
    }
}

/// The lanes that accounts of a snapshot use, and how their issuers stand.
fn lanes(snapshot: &Snapshot, now: Timestamp) -> BTreeMap<Lane, Standing> {
    let mut lanes = BTreeMap::new();
    for terms in snapshot.accounts.keys().filter_map(|account| snapshot.terms(account)) {
        if lanes.len() >= LANES {
            break;
        }
        let lane = crate::admission::slot(&terms).lane();
        lanes.insert(lane, terms.issuer.standing(terms.profile.purpose, now));
    }
    lanes
}

/// A front end that is behind takes itself out only where another one that is not can do its work.
async fn registry(app: &App) -> Result<(), String> {
    let applied = app.applied.load().revision();
    if applied == 0 {
        return Err("no revision of the registry is known".into());
    }
    let now = app.clock.now();
    let Some(behind) = app.follower.behind().filter(|behind| now.since(behind.since) > GRACE) else {
        return Ok(());
    };
    tracing::warn!(reason = behind.reason, "behind the registry");
    let Ok(Ok(fleet)) = timeout(EVERY, app.store.incarnations()).await else {
        return Ok(());
    };
    let other = fleet.iter().any(|other| {
        let said = &other.announcement;
        said.role == Role::Frontend && said.revision > applied && other.lease_until > now
    });
    if other { Err(behind.reason) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lanes_trouble_is_told_and_bounded() {
        let troubles = Troubles::default();
        for n in 0..2 * LANES {
            troubles.refused(&format!("issuer-{n}.bulk").parse().unwrap(), "the lane is full".into());
        }
        assert_eq!(
            troubles.of(&"issuer-0.bulk".parse().unwrap()).as_deref(),
            Some("the lane is full")
        );
        assert_eq!(troubles.of(&"other.bulk".parse().unwrap()), None);
        assert_eq!(troubles.0.lock().unwrap().len(), LANES);
    }
}
