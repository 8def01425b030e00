//! The whole signer against the real ledger, broker and soft keys.

mod aside;
mod bench;
mod faults;
mod keyring;
mod messages;
mod statements;
mod stopping;
mod token;
