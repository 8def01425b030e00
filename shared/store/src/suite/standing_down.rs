//! Permits to stand down: a share of the live holders of each issuer's key, and never the last one.

use std::time::Duration;

use domain::{
    id::Incarnation,
    issuer::Role,
    stand_down::{Permit, Refusal},
};

use super::{
    Harness,
    world::{World, node},
};
use crate::Announcement;

const LEASE: Duration = Duration::from_secs(2);

/// A signer that lives and holds these keys.
async fn signer(world: &World, name: &str, issuers: &[&str]) -> Incarnation {
    let incarnation = node(name);
    let announcement = Announcement {
        issuers: issuers.iter().map(|issuer| issuer.parse().unwrap()).collect(),
        ..world.announcement(&incarnation)
    };
    world.store.heartbeat(&announcement, LEASE).await.unwrap();
    incarnation
}

async fn ask(world: &World, signer: &Incarnation) -> Permit {
    world.store.stand_down(signer, 50).await.unwrap()
}

fn last_holder(issuer: &str) -> Permit {
    Permit::Refused(Refusal::LastHolder(issuer.parse().unwrap()))
}

fn share(issuer: &str) -> Permit {
    Permit::Refused(Refusal::Share(issuer.parse().unwrap()))
}

pub(crate) async fn of_two_signers_that_ask_at_the_same_instant_one_stands_down(harness: &impl Harness) {
    let world = World::new(harness).await;
    let (one, two) = (
        signer(&world, "one", &["alpha"]).await,
        signer(&world, "two", &["alpha"]).await,
    );
    for round in 0..20 {
        let (first, second) = tokio::join!(ask(&world, &one), ask(&world, &two));
        let granted = [&first, &second]
            .into_iter()
            .filter(|permit| **permit == Permit::Granted);
        assert_eq!(granted.count(), 1, "round {round}: {first:?} {second:?}");
        world.store.stand_up(&one).await.unwrap();
        world.store.stand_up(&two).await.unwrap();
    }
}

pub(crate) async fn the_last_holder_of_any_of_its_keys_is_refused(harness: &impl Harness) {
    let world = World::new(harness).await;
    let one = signer(&world, "one", &["alpha", "beta"]).await;
    assert_eq!(ask(&world, &one).await, last_holder("alpha"));
    let two = signer(&world, "two", &["alpha"]).await;
    assert_eq!(ask(&world, &one).await, last_holder("beta"));
    // Whoever is not a signer holds nothing, whatever it says.
    let front = Announcement {
        role: Role::Frontend,
        issuers: vec!["beta".parse().unwrap()],
        ..world.announcement(&node("front"))
    };
    world.store.heartbeat(&front, LEASE).await.unwrap();
    assert_eq!(ask(&world, &one).await, last_holder("beta"));
    assert_eq!(ask(&world, &two).await, Permit::Granted);
    assert_eq!(ask(&world, &node("stranger")).await, Permit::Refused(Refusal::NoLease));
}

pub(crate) async fn of_three_holders_one_stands_down_until_it_gives_its_permit_back(harness: &impl Harness) {
    let world = World::new(harness).await;
    let mut signers = Vec::new();
    for name in ["one", "two", "three"] {
        signers.push(signer(&world, name, &["alpha", "beta"]).await);
    }
    assert_eq!(ask(&world, &signers[0]).await, Permit::Granted);
    assert_eq!(ask(&world, &signers[1]).await, share("alpha"));
    assert_eq!(ask(&world, &signers[2]).await, share("alpha"));
    assert_eq!(ask(&world, &signers[0]).await, Permit::Granted, "it still holds");
    world.store.stand_up(&signers[0]).await.unwrap();
    assert_eq!(ask(&world, &signers[1]).await, Permit::Granted);
    // A greater share lets two of three, and never all.
    assert_eq!(world.store.stand_down(&signers[2], 100).await.unwrap(), Permit::Granted);
    assert_eq!(
        world.store.stand_down(&signers[0], 100).await.unwrap(),
        last_holder("alpha")
    );
}

pub(crate) async fn a_permit_ends_with_the_lease(harness: &impl Harness) {
    let world = World::new(harness).await;
    let (one, two) = (
        signer(&world, "one", &["alpha"]).await,
        signer(&world, "two", &["alpha"]).await,
    );
    assert_eq!(ask(&world, &one).await, Permit::Granted);
    // A heartbeat in time keeps it.
    world.advance(Duration::from_secs(1));
    signer(&world, "one", &["alpha"]).await;
    signer(&world, "two", &["alpha"]).await;
    assert_eq!(ask(&world, &two).await, last_holder("alpha"));
    // One that comes too late does not bring it back.
    world.advance(LEASE);
    signer(&world, "two", &["alpha"]).await;
    assert_eq!(ask(&world, &two).await, last_holder("alpha"), "nobody else lives");
    signer(&world, "one", &["alpha"]).await;
    assert_eq!(ask(&world, &two).await, Permit::Granted);
    world.store.goodbye(&two).await.unwrap();
    assert_eq!(ask(&world, &one).await, last_holder("alpha"));
    assert_eq!(ask(&world, &two).await, Permit::Refused(Refusal::NoLease));
}

pub(crate) async fn a_permit_is_taken_away_when_the_others_are_gone(harness: &impl Harness) {
    let world = World::new(harness).await;
    let (one, two) = (
        signer(&world, "one", &["alpha"]).await,
        signer(&world, "two", &["alpha"]).await,
    );
    assert_eq!(ask(&world, &one).await, Permit::Granted);
    world.store.goodbye(&two).await.unwrap();
    assert_eq!(ask(&world, &one).await, last_holder("alpha"));
    // It is gone: the other one, when it is back, may have one.
    let two = signer(&world, "two", &["alpha"]).await;
    assert_eq!(ask(&world, &two).await, Permit::Granted);
}
