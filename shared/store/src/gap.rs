//! The gap between commits, and how it grows under load.
//!
//! A commit starts at once when the last one began at least a gap ago, so an idle ledger delays nothing. A commit of several rows says
//! that more are coming than commits: the gap after it is wider, and the next ones are larger and cost less for each row.

use std::time::Duration;

/// A commit of so many rows doubles the gap after it, twice as many treble it, and so on.
const BUSY: usize = 2;

/// The gap after a commit of so many rows: at most `widest` gaps.
pub(crate) fn after(gap: Duration, widest: u32, rows: usize) -> Duration {
    let gaps = u32::try_from(1 + rows / BUSY).unwrap_or(u32::MAX);
    gap * gaps.min(widest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_leaves_the_gap_as_it_is_and_many_widen_it_up_to_a_limit() {
        let gap = Duration::from_millis(2);
        assert_eq!(after(gap, 3, 0), gap);
        assert_eq!(after(gap, 3, 1), gap);
        assert_eq!(after(gap, 3, 2), gap * 2);
        assert_eq!(after(gap, 3, 4), gap * 3);
        assert_eq!(after(gap, 3, usize::MAX), gap * 3);
        assert_eq!(after(Duration::ZERO, 3, 100), Duration::ZERO);
    }
}
