//! What became of each publication, from confirms that carry somebody else's returned message.
//!
//! A broker returns a message that found no queue before it confirms it. The client library hands the oldest returned message to whichever
//! confirm completes next, and one multiple confirm completes in no particular order. So a returned message is told by the name that its
//! publication gave it, and a confirm that carries another's is believed only when no returned message of its own can follow: when a
//! later confirm carries none, or when no confirm is awaited any more.

use std::collections::{HashMap, HashSet};

/// What the broker did with a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has it.
    Confirmed,
    /// It would not take it: the queue is full.
    Refused,
    /// No queue was there for it.
    Unroutable,
}

/// Confirms that wait to be believed.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// Names of returned messages whose own confirm has not completed.
    returned: HashSet<u64>,
    doubtful: HashMap<u64, Verdict>,
}

impl Verdicts {
    /// A publication's confirm is complete; it carried this returned message. Gives what is certain now.
    pub fn completed(&mut self, name: u64, taken: bool, carried: Option<u64>, awaited: usize) -> Vec<(u64, Verdict)> {
        self.returned.extend(carried);
        let verdict = if taken { Verdict::Confirmed } else { Verdict::Refused };
        self.doubtful.insert(name, verdict);
        let certain = carried.is_none() || awaited == 0;
        let (returned, mut ended) = (&mut self.returned, Vec::new());
        self.doubtful.retain(|name, verdict| {
            let verdict = if returned.remove(name) {
                Verdict::Unroutable
            } else {
                *verdict
            };
            let ends = certain || verdict == Verdict::Unroutable;
            if ends {
                ended.push((*name, verdict));
            }
            !ends
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a broker and the library do: `kinds[n]` says whether publication n finds a queue; confirms complete in batches, each batch in
    /// an order of its own, and each completion takes along the oldest returned message.
    fn run(kinds: &[bool], batches: &[usize], shuffles: &[usize]) -> HashMap<u64, Verdict> {
        let (mut verdicts, mut results) = (Verdicts::default(), HashMap::new());
        let (mut next, mut awaited) = (0, kinds.len());
        let mut batches = batches.iter().cycle();
        while next < kinds.len() {
            let end = (next + batches.next().unwrap()).min(kinds.len());
            let mut waiting: std::collections::VecDeque<u64> =
                (next..end).filter(|n| !kinds[*n]).map(|n| n as u64).collect();
            let mut batch: Vec<usize> = (next..end).collect();
            batch.sort_by_key(|n| shuffles[n % shuffles.len()]);
            for name in batch {
                awaited -= 1;
                for (name, verdict) in verdicts.completed(name as u64, true, waiting.pop_front(), awaited) {
                    assert!(results.insert(name, verdict).is_none(), "{name} was judged twice");
                }
            }
            next = end;
        }
        results
    }

    proptest! {
        #[test]
        fn every_publication_gets_its_own_verdict(
            kinds in proptest::collection::vec(any::<bool>(), 1..60),
            batches in proptest::collection::vec(1..9_usize, 1..9),
            shuffles in proptest::collection::vec(any::<usize>(), 1..30),
        ) {
            let results = run(&kinds, &batches, &shuffles);
            prop_assert_eq!(results.len(), kinds.len());
            for (name, routable) in kinds.iter().enumerate() {
                let expected = if *routable { Verdict::Confirmed } else { Verdict::Unroutable };
                prop_assert_eq!(results[&(name as u64)], expected, "{}", name);
            }
        }
    }

    #[test]
    fn a_refusal_is_told_at_once() {
        let mut verdicts = Verdicts::default();
        assert_eq!(verdicts.completed(7, false, None, 3), [(7, Verdict::Refused)]);
    }
}
