//! Software keys.
