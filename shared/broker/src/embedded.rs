//! The embedded adapter: lanes in memory.
