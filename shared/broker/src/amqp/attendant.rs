//! Keeps a signer's inbox attached to the broker: a reconciler that starts a task for each lane that is to be consumed and ends the tasks
//! of all others. It is woken by every change of what is wanted; what happens to the broker is the tasks' concern ([`super::tending`]).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use domain::lane::Lane;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{
    inbox::Shared, link::Link, lock, options::Options, tending::tend, topology::Declarations, waking::hear_wake_ups,
};
use crate::OwnLanes;

/// What an inbox's tasks work with.
#[derive(Debug)]
pub(super) struct Desks {
    pub link: Link,
    pub declarations: Arc<Declarations>,
    pub options: Arc<Options>,
    pub own: OwnLanes,
    pub shared: Shared,
    /// Jobs of one lane that may be out.
    pub prefetch: usize,
}

/// Attends for ever.
pub(super) async fn attend(desks: Arc<Desks>) {
    let mut own = desks.own.subscribe();
    let (hear, heard) = watch::channel(BTreeSet::new());
    let _waking = AbortOnDropHandle::new(tokio::spawn(hear_wake_ups(desks.clone(), heard)));
    let mut tended: HashMap<Lane, (u64, AbortOnDropHandle<()>)> = HashMap::new();
    loop {
        let change = desks.shared.latest();
        let plan = lock(&desks.shared.desk).plan(|lane| desks.own.carrier(lane));
        hear.send_if_modified(|before| {
            let changed = *before != plan.hear;
            *before = plan.hear;
            changed
        });
        tended.retain(|lane, (generation, _)| plan.consume.get(lane) == Some(generation));
        let lanes = plan.consume.len();
        for (lane, generation) in plan.consume {
            tended.entry(lane).or_insert_with_key(|lane| {
                let task = tokio::spawn(tend(desks.clone(), lane.clone(), generation, lanes));
                (generation, AbortOnDropHandle::new(task))
            });
        }
        desks.shared.planned(change);
        tokio::select! {
            () = desks.shared.changed.notified() => {}
            _ = own.changed() => {}
        }
    }
}
