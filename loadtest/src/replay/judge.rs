//! What came of an incident: from what was seen, second by second, to the figures of a report. Pure.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::asking::{Asked, Seen};

/// Length of the windows in which normal is told from not normal.
const WINDOW: Duration = Duration::from_secs(1);
/// How finely the return to normal is told.
const STEP: Duration = Duration::from_millis(250);
/// How much slower than before is still as before.
pub const ALLOWED_RATIO: f64 = 1.25;

/// When things happened, since the first request was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The first fault.
    pub first_fault: Duration,
    /// The last one has ended.
    pub last_fault: Duration,
    /// The last request was due.
    pub end: Duration,
}

/// A moment, as it was seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Duration,
    /// Open jobs.
    pub depth: u64,
    /// Signers that back off.
    pub backing_off: u64,
}

/// What is counted of jobs once everything has come to rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Accepted, and not to be found or without an end.
    pub lost: usize,
    /// More than one certificate for one request.
    pub issued_twice: usize,
}

/// The figures of one system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Healthy requests due between the first fault and the return to normal.
    pub healthy_requests: usize,
    /// Those of them whose answer held no certificate.
    pub healthy_failed: usize,
    /// The slowest hundredth of the healthy requests took at least this long before the first fault.
    pub healthy_p99_ms_before: f64,
    /// The same between the first fault and the return to normal.
    pub healthy_p99_ms_during: f64,
    /// During, as a multiple of before.
    pub healthy_p99_ratio: f64,
    /// From the last fault to the return to normal; if there was none, as long as was watched.
    pub recovery_seconds: f64,
    /// Jobs accepted that came to no end.
    pub lost: usize,
    /// Requests that brought more than one certificate.
    pub issued_twice: usize,
    /// Signers that backed off at the same time, at most.
    pub signers_backed_off_max: u64,
    /// Whether it returned to normal while it was watched.
    pub recovered: bool,
    /// Healthy requests due before the first fault.
    pub healthy_requests_before: usize,
    /// Those of them whose answer held no certificate.
    pub healthy_failed_before: usize,
    /// The figure before, of each third of that time.
    pub quiet_p99_ms: Vec<f64>,
    /// Why healthy requests failed.
    pub failures: BTreeMap<String, usize>,
}

/// One second of the plot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Second {
    /// Since the first fault, in seconds.
    pub at: f64,
    pub p99_ms: f64,
    /// Failed, as a share of those that were due.
    pub failed: f64,
    /// Open jobs, at most.
    pub depth: u64,
    /// Signers that backed off, at most.
    pub backing_off: u64,
}

fn between(asked: &[Asked], from: Duration, to: Duration) -> &[Asked] {
    let index = |at: Duration| asked.partition_point(|asked| asked.due < at);
    &asked[index(from)..index(to).max(index(from))]
}

fn failed(asked: &[Asked]) -> usize {
    asked.iter().filter(|asked| !asked.seen.is_issued()).count()
}

/// How long the slowest hundredth took at least, in milliseconds; `None` of nothing.
fn p99(asked: &[Asked]) -> Option<f64> {
    let mut took: Vec<Duration> = asked.iter().map(|asked| asked.took).collect();
    took.sort_unstable();
    let index = (took.len() * 99).div_ceil(100).checked_sub(1)?;
    Some(took[index].as_secs_f64() * 1e3)
}

/// The start of the first two windows after the last fault that are as windows were before the first: no failure, and no slower than the
/// slowest of those, or than is allowed of the whole.
fn recovery(asked: &[Asked], marks: Marks, before: f64) -> Option<Duration> {
    let mut usual = before * ALLOWED_RATIO;
    let mut from = Duration::ZERO;
    while from + WINDOW <= marks.first_fault {
        usual = p99(between(asked, from, from + WINDOW)).map_or(usual, |p99| usual.max(p99));
        from += WINDOW;
    }
    let is_normal = |from: Duration| {
        let window = between(asked, from, from + WINDOW);
        failed(window) == 0 && p99(window).is_some_and(|p99| p99 <= usual)
    };
    let mut from = marks.last_fault;
    while from + WINDOW * 2 <= marks.end {
        if is_normal(from) && is_normal(from + WINDOW) {
            return Some(from);
        }
        from += STEP;
    }
    None
}

/// The figures. `asked` are the healthy requests by when they were due.
pub fn figures(asked: &[Asked], moments: &[Moment], marks: Marks, counted: Counted) -> Figures {
    let before = between(asked, Duration::ZERO, marks.first_fault);
    let p99_before = p99(before).unwrap_or_default();
    let third = marks.first_fault / 3;
    let recovered_at = recovery(asked, marks, p99_before);
    let normal_at = recovered_at.unwrap_or(marks.end);
    let during = between(asked, marks.first_fault, normal_at);
    let p99_during = p99(during).unwrap_or_default();
    let mut failures = BTreeMap::new();
    for asked in during {
        let why = match &asked.seen {
            Seen::Issued { .. } => continue,
            Seen::Accepted(_) => "(accepted, not issued in time)",
            Seen::Nothing(why) => why,
        };
        *failures.entry(why.to_owned()).or_default() += 1;
    }
    Figures {
        healthy_requests: during.len(),
        healthy_failed: failed(during),
        healthy_p99_ms_before: p99_before,
        healthy_p99_ms_during: p99_during,
        healthy_p99_ratio: if p99_before > 0.0 { p99_during / p99_before } else { 0.0 },
        recovery_seconds: normal_at.saturating_sub(marks.last_fault).as_secs_f64(),
        lost: counted.lost,
        issued_twice: counted.issued_twice,
        signers_backed_off_max: moments
            .iter()
            .filter(|moment| moment.at >= marks.first_fault)
            .map(|moment| moment.backing_off)
            .max()
            .unwrap_or_default(),
        recovered: recovered_at.is_some(),
        healthy_requests_before: before.len(),
        healthy_failed_before: failed(before),
        quiet_p99_ms: (0..3)
            .filter_map(|window| p99(between(asked, third * window, third * (window + 1))))
            .collect(),
        failures,
    }
}

/// The plot's seconds.
pub fn seconds(asked: &[Asked], moments: &[Moment], marks: Marks) -> Vec<Second> {
    let mut seconds = Vec::new();
    let mut from = Duration::ZERO;
    while from + WINDOW <= marks.end {
        let window = between(asked, from, from + WINDOW);
        let seen = moments
            .iter()
            .filter(|moment| (from..from + WINDOW).contains(&moment.at));
        #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^53")]
        let share = failed(window) as f64 / window.len().max(1) as f64;
        seconds.push(Second {
            at: from.as_secs_f64() - marks.first_fault.as_secs_f64(),
            p99_ms: p99(window).unwrap_or_default(),
            failed: share,
            depth: seen.clone().map(|moment| moment.depth).max().unwrap_or_default(),
            backing_off: seen.map(|moment| moment.backing_off).max().unwrap_or_default(),
        });
        from += WINDOW;
    }
    seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks {
        first_fault: Duration::from_secs(10),
        last_fault: Duration::from_secs(20),
        end: Duration::from_secs(30),
    };

    /// A hundred requests a second for 30 s; how long each took and whether it failed, by when it was due.
    fn history(of: impl Fn(f64) -> (u64, bool)) -> Vec<Asked> {
        (0..3_000_u32)
            .map(|number| {
                let due = Duration::from_millis(u64::from(number) * 10);
                let (millis, is_failed) = of(due.as_secs_f64());
                Asked {
                    due,
                    took: Duration::from_millis(millis),
                    request: 0,
                    seen: if is_failed {
                        Seen::Nothing("(HTTP 503)".into())
                    } else {
                        Seen::Issued {
                            serial: String::new(),
                            body: bytes::Bytes::new(),
                        }
                    },
                    again: None,
                }
            })
            .collect()
    }

    fn close(found: f64, wanted: f64) -> bool {
        (found - wanted).abs() < 1e-9
    }

    #[test]
    fn a_system_that_notices_nothing_is_normal_at_once() {
        let figures = figures(&history(|_| (10, false)), &[], MARKS, Counted::default());
        assert_eq!((figures.healthy_requests, figures.healthy_failed), (1_000, 0));
        assert!(close(figures.healthy_p99_ratio, 1.0) && close(figures.recovery_seconds, 0.0));
        assert!(figures.recovered && figures.quiet_p99_ms.len() == 3);
    }

    #[test]
    fn what_fails_counts_from_the_first_fault_to_the_return_to_normal() {
        // From 12 s to 23 s everything fails, and from then to 24 s it is slow.
        let bad = history(|due| match due {
            12.0..23.0 => (6_000, true),
            23.0..24.0 => (100, false),
            _ => (10, false),
        });
        let backing_off = [(5, 7), (13, 3), (14, 2)].map(|(at, backing_off)| Moment {
            at: Duration::from_secs(at),
            depth: at * 100,
            backing_off,
        });
        let counted = Counted {
            lost: 1,
            issued_twice: 2,
        };
        let figures = figures(&bad, &backing_off, MARKS, counted);
        assert_eq!((figures.healthy_requests, figures.healthy_failed), (1_400, 1_100));
        assert!(close(figures.recovery_seconds, 4.0) && figures.recovered);
        assert!(close(figures.healthy_p99_ms_before, 10.0) && close(figures.healthy_p99_ms_during, 6_000.0));
        assert_eq!(
            (figures.lost, figures.issued_twice, figures.signers_backed_off_max),
            (1, 2, 3)
        );
        assert_eq!(figures.failures["(HTTP 503)"], 1_100);
        let seconds = seconds(&bad, &backing_off, MARKS);
        assert_eq!(seconds.len(), 30);
        assert!(close(seconds[13].at, 3.0) && close(seconds[13].failed, 1.0));
        assert_eq!((seconds[13].depth, seconds[13].backing_off), (1_300, 3));
    }

    #[test]
    fn what_never_returns_has_not_recovered() {
        let figures = figures(&history(|due| (10, due > 11.0)), &[], MARKS, Counted::default());
        assert!(!figures.recovered && close(figures.recovery_seconds, 10.0));
        assert_eq!(figures.healthy_requests, 2_000);
    }
}
