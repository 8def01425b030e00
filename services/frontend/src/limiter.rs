//! How fast an account may ask, and how often a client certificate may fail.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use domain::{bytes::Digest, id::AccountId};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use moka::sync::Cache;

/// How many buckets are kept, and how long one that is not used. A bucket is full again after a second without use, so forgetting one
/// forgives nothing.
const BUCKETS: u64 = 100_000;
const IDLE: Duration = Duration::from_mins(1);

/// Whose bucket it is. The rate is part of the name: a changed rate counts at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Bucket {
    Account(AccountId, u32),
    Failures(Digest),
}

/// Token buckets, one second deep, bounded in number.
#[derive(Debug)]
pub struct Limiter {
    buckets: Cache<Bucket, Arc<DefaultDirectRateLimiter>>,
    clock: DefaultClock,
    failures_per_second: u32,
}

impl Limiter {
    /// Buckets for accounts at their own rates, and for failures at this one.
    pub fn new(failures_per_second: u32) -> Self {
        Self {
            buckets: Cache::builder().max_capacity(BUCKETS).time_to_idle(IDLE).build(),
            clock: DefaultClock::default(),
            failures_per_second,
        }
    }

    /// Takes a request of an account out of its bucket, or says how long there will be none in it.
    pub fn request(&self, account: &AccountId, per_second: u32) -> Result<(), Duration> {
        self.take(Bucket::Account(account.clone(), per_second), per_second)
    }

    /// Whether a client certificate may try a login or a token again.
    pub fn failed(&self, certificate: Digest) -> Result<(), Duration> {
        self.take(Bucket::Failures(certificate), self.failures_per_second)
    }

    fn take(&self, bucket: Bucket, per_second: u32) -> Result<(), Duration> {
        let Some(rate) = NonZeroU32::new(per_second) else {
            return Err(Duration::from_secs(1));
        };
        let bucket = self
            .buckets
            .get_with(bucket, || Arc::new(RateLimiter::direct(Quota::per_second(rate))));
        bucket
            .check()
            .map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_accounts_flood_is_not_anothers() {
        let limiter = Limiter::new(2);
        let (one, two) = ("one".parse().unwrap(), "two".parse().unwrap());
        for _ in 0..5 {
            limiter.request(&one, 5).unwrap();
        }
        let wait = limiter.request(&one, 5).unwrap_err();
        assert!(wait <= Duration::from_millis(200), "{wait:?}");
        limiter.request(&two, 5).unwrap();
        assert!(limiter.request(&two, 0).is_err(), "a rate of 0 lets nothing through");
    }

    #[test]
    fn failures_are_counted_by_certificate() {
        let limiter = Limiter::new(2);
        let (mallory, alice) = (Digest([1; 32]), Digest([2; 32]));
        limiter.failed(mallory).unwrap();
        limiter.failed(mallory).unwrap();
        limiter.failed(mallory).unwrap_err();
        limiter.failed(alice).unwrap();
    }
}
