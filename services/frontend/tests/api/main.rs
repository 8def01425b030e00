//! The API as clients see it, over a real ledger and a real broker.

mod account;
mod ca;
mod client;
mod clients;
mod faulty;
mod gate;
mod issuing;
mod login;
mod outages;
mod over_tls;
mod overload;
mod refusals;
mod rekeying;
mod revocation;
mod world;
