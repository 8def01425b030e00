//! The decisions of Bulkhead, without clock, randomness or I/O: `now` and `entropy` are arguments, events go in and effects come out.

pub mod bytes;
pub mod failure;
pub mod id;
pub mod issuer;
pub mod job;
pub mod key;
pub mod lane;
pub mod policy;
pub mod registry;
pub mod request;
pub mod statement;
pub mod time;
