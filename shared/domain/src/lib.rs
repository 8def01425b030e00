//! The decisions of Bulkhead, without clock, randomness or I/O: `now` and `entropy` are arguments, events go in and effects come out.

pub mod admission;
pub mod audit;
pub mod backoff;
pub mod breaker;
pub mod bytes;
pub mod dispatch;
pub mod estimate;
pub mod failure;
pub mod fair;
pub mod id;
pub mod issuer;
pub mod job;
pub mod key;
pub mod lane;
pub mod pace;
pub mod policy;
pub mod reconcile;
pub mod registry;
pub mod repeat;
pub mod request;
pub mod stand_down;
pub mod statement;
pub mod template;
pub mod throttle;
pub mod time;
