//! Random steps of front ends and signers: whatever their order, nothing is lost, nothing settled comes again, nothing is out twice at
//! a time, and nothing stays behind while a signer has room for it.

use std::collections::{BTreeMap, BTreeSet};

use domain::lane::Lane;
use tokio::time::timeout;

use super::{JOBS, Subject, body, is_full, lane};
use crate::{Inbox, Incoming};

const LANES: usize = 3;
const SIGNERS: usize = 2;
/// Jobs that may be out: room for three envelopes.
const ENVELOPES: usize = 3;
const PREFETCH: usize = ENVELOPES * JOBS;

/// One step. Numbers are taken modulo what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are numbers of lanes, signers and deliveries")]
pub enum Step {
    /// A front end publishes.
    Publish { lane: usize },
    /// A signer looks for a message.
    Next { signer: usize },
    /// A signer settles one that it has.
    Settle { signer: usize, which: usize },
    /// A signer gives back one that it has.
    GiveBack { signer: usize, which: usize },
    /// A signer pauses a lane.
    Pause { signer: usize, lane: usize },
    /// A signer resumes a lane.
    Resume { signer: usize, lane: usize },
    /// A signer goes, and comes again.
    Reopen { signer: usize },
}

struct Signer {
    inbox: Box<dyn Inbox>,
    /// Lane and number of what is out, by tag.
    out: BTreeMap<u64, (usize, usize)>,
    paused: BTreeSet<usize>,
}

impl Signer {
    async fn open(subject: &Subject, lanes: &[Lane]) -> Self {
        Self {
            inbox: subject.serve(lanes, ENVELOPES).await,
            out: BTreeMap::new(),
            paused: BTreeSet::new(),
        }
    }

    /// Jobs of a lane that are out.
    fn jobs(&self, lane: usize) -> usize {
        self.out.values().filter(|(of, _)| *of == lane).count() * JOBS
    }
}

struct Run {
    subject: Subject,
    lanes: Vec<Lane>,
    signers: Vec<Signer>,
    published: Vec<usize>,
    settled: BTreeSet<(usize, usize)>,
}

/// Does the steps, checking each, and at the end receives everything that is left.
///
/// # Panics
/// When the contract is broken.
pub async fn run(subject: Subject, steps: &[Step]) {
    let lanes: Vec<_> = (0..LANES).map(|number| lane(&format!("lane-{number}"))).collect();
    let mut signers = Vec::new();
    for _ in 0..SIGNERS {
        signers.push(Signer::open(&subject, &lanes).await);
    }
    let mut run = Run {
        published: vec![0; lanes.len()],
        subject,
        lanes,
        signers,
        settled: BTreeSet::new(),
    };
    for step in steps {
        run.step(*step).await;
    }
    run.finish().await;
}

fn pick<T: Copy>(from: impl ExactSizeIterator<Item = T>, which: usize) -> Option<T> {
    let count = from.len();
    let mut from = from;
    if count == 0 { None } else { from.nth(which % count) }
}

impl Run {
    async fn step(&mut self, step: Step) {
        match step {
            Step::Publish { lane } => {
                let number = self.published[lane % LANES];
                let to = &self.lanes[lane % LANES];
                let result = self.subject.offer(to, number).await;
                if !is_full(&result, to) {
                    assert_eq!(result, Ok(()));
                    self.published[lane % LANES] += 1;
                }
            }
            Step::Next { signer } => {
                self.receive(signer % SIGNERS).await;
            }
            Step::Settle { signer, which } => {
                let signer = &mut self.signers[signer % SIGNERS];
                let Some(tag) = pick(signer.out.keys().copied(), which) else {
                    return;
                };
                assert_eq!(signer.inbox.settle(&[tag]).await, Ok(()));
                self.settled.extend(signer.out.remove(&tag));
            }
            Step::GiveBack { signer, which } => {
                let signer = &mut self.signers[signer % SIGNERS];
                let Some(tag) = pick(signer.out.keys().copied(), which) else {
                    return;
                };
                assert_eq!(signer.inbox.give_back(&[tag]).await, Ok(()));
                signer.out.remove(&tag);
            }
            Step::Pause { signer, lane } => {
                let signer = &mut self.signers[signer % SIGNERS];
                assert_eq!(signer.inbox.pause(&self.lanes[lane % LANES]).await, Ok(()));
                signer.out.retain(|_, (of, _)| *of != lane % LANES);
                signer.paused.insert(lane % LANES);
            }
            Step::Resume { signer, lane } => {
                let signer = &mut self.signers[signer % SIGNERS];
                assert_eq!(signer.inbox.resume(&self.lanes[lane % LANES]).await, Ok(()));
                signer.paused.remove(&(lane % LANES));
            }
            Step::Reopen { signer } => {
                drop(self.signers.remove(signer % SIGNERS));
                let again = Signer::open(&self.subject, &self.lanes).await;
                self.signers.insert(signer % SIGNERS, again);
            }
        }
    }

    async fn receive(&mut self, which: usize) -> bool {
        let next = timeout(self.subject.patience, self.signers[which].inbox.next()).await;
        let Ok(message) = next else { return false };
        let Some(Incoming::Delivery(delivery)) = message else {
            panic!("a delivery was expected, not {message:?}");
        };
        let lane = self
            .lanes
            .iter()
            .position(|lane| *lane == delivery.lane)
            .expect("only known lanes are served");
        let number = (0..self.published[lane])
            .find(|&number| body(&delivery.lane, number) == delivery.body)
            .expect("only what was published arrives");
        let envelope = (lane, number);
        assert!(
            !self.settled.contains(&envelope),
            "{envelope:?} was settled and came again"
        );
        for signer in &self.signers {
            assert!(
                !signer.out.values().any(|out| *out == envelope),
                "{envelope:?} is out twice"
            );
        }
        let signer = &mut self.signers[which];
        assert!(
            signer.out.insert(delivery.tag, envelope).is_none(),
            "a tag was used twice"
        );
        assert!(
            signer.jobs(lane) <= PREFETCH,
            "more than the prefetch is out of lane {lane}"
        );
        true
    }

    /// Receives until nothing comes. What is neither settled nor out then, nobody has room for.
    async fn drain(&mut self) {
        for signer in 0..SIGNERS {
            while self.receive(signer).await {}
        }
        for lane in 0..LANES {
            let out: usize = self.signers.iter().map(|signer| signer.jobs(lane) / JOBS).sum();
            let settled = self.settled.iter().filter(|(of, _)| *of == lane).count();
            let mut open = self.signers.iter().filter(|signer| !signer.paused.contains(&lane));
            assert!(
                out + settled == self.published[lane] || open.all(|signer| signer.jobs(lane) + JOBS > PREFETCH),
                "lane {lane} is held up"
            );
        }
    }

    async fn finish(mut self) {
        self.drain().await;
        self.signers.clear();
        self.signers.push(Signer::open(&self.subject, &self.lanes).await);
        let mut before = [None; LANES];
        while self.receive(0).await {
            let (tag, (lane, number)) = self.signers[0].out.pop_first().expect("one is out");
            assert!(
                !self.subject.returns_in_place || before[lane].is_none_or(|before| before < number),
                "lane {lane} is out of order"
            );
            before[lane] = Some(number);
            assert_eq!(self.signers[0].inbox.settle(&[tag]).await, Ok(()));
            self.settled.insert((lane, number));
        }
        let published: BTreeSet<_> = (0..LANES)
            .flat_map(|lane| (0..self.published[lane]).map(move |number| (lane, number)))
            .collect();
        assert_eq!(self.settled, published, "something was lost");
    }
}
