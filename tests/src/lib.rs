//! Starts the real program for the scenarios, and watches what becomes of it.
