//! PKCS#11 tokens, with SoftHSM in the place of hardware.

mod contract;
mod faults;
mod hsm;
mod sick;
