//! Answers for a waiting front end: what became of jobs. A hint as well: the ledger has the same.

use bytes::Bytes;
use domain::{
    bytes::Blob,
    id::{Incarnation, NodeId, Serial},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{
    signed::{self, Context, DocumentError, NodeKey, read_versioned, write_json},
    trust::Directory,
};

/// The only version so far. Others are set aside and reported.
pub const ANSWER_VERSION: u16 = 1;

/// The greatest number of answers in one message.
pub const MAX_ANSWERS: usize = 256;

/// What became of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// Which.
    pub job: Serial,
    /// What.
    pub outcome: AnswerOutcome,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum AnswerOutcome {
    /// There is a certificate: the job's to-be-signed bytes with this signature, as `finish` returned it.
    Issued {
        /// The signature value.
        signature: Blob,
        /// When it was issued.
        at: Timestamp,
    },
    /// It was refused.
    Refused {
        /// A problem's id.
        id: String,
        /// For the client.
        detail: String,
    },
    /// Nobody wanted it any more.
    Expired,
    /// An operator discarded it.
    Discarded {
        /// What the operator said.
        reason: String,
    },
}

/// Answers for one front end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answers {
    /// [`ANSWER_VERSION`].
    pub version: u16,
    /// Whom they are for. Another run of the same node does not wait for them.
    pub to: Incarnation,
    /// At least one, at most [`MAX_ANSWERS`].
    pub answers: Vec<Answer>,
}

impl Answers {
    /// Answers of the version that this program writes.
    pub fn new(to: Incarnation, answers: Vec<Answer>) -> Self {
        Self {
            version: ANSWER_VERSION,
            to,
            answers,
        }
    }

    /// Seals them.
    pub fn to_bytes(&self, key: &NodeKey) -> Bytes {
        signed::seal(Context::Answer, key, &write_json(self))
    }

    /// Opens sealed answers: a signer says them, they are of a known version, and there are not too many.
    pub fn open(sealed: &[u8], directory: &Directory, at: Timestamp) -> Result<(NodeId, Self), DocumentError> {
        let opened = signed::open(Context::Answer, directory, at, sealed)?;
        let answers: Self = read_versioned("answer", ANSWER_VERSION, &opened.body)?;
        let count = answers.answers.len();
        if count == 0 || count > MAX_ANSWERS {
            let detail = format!("{count} answers, where 1 to {MAX_ANSWERS} are taken");
            return Err(DocumentError::Malformed { kind: "answer", detail });
        }
        Ok((opened.node, answers))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trust::fixtures::{Fleet, NOW};

    fn answers(count: usize) -> Answers {
        let outcomes = [
            AnswerOutcome::Issued {
                signature: vec![7; 256].into(),
                at: NOW,
            },
            AnswerOutcome::Refused {
                id: "weak_key".into(),
                detail: "the exponent is 3".into(),
            },
            AnswerOutcome::Expired,
            AnswerOutcome::Discarded { reason: "drill".into() },
        ];
        let answers = outcomes.into_iter().cycle().take(count);
        let job = Serial::new(NOW, [1; 10]);
        Answers::new(
            "frontend-1#00000000000000ff".parse().unwrap(),
            answers.map(|outcome| Answer { job, outcome }).collect(),
        )
    }

    #[test]
    fn answers_are_read_back_as_they_were_sealed() {
        let fleet = Fleet::new();
        for count in [1, 4, MAX_ANSWERS] {
            let sealed = answers(count).to_bytes(&fleet.signer);
            let (node, opened) = Answers::open(&sealed, &fleet.directory, NOW).unwrap();
            assert_eq!((node.as_str(), opened), ("signer-1", answers(count)));
        }
    }

    #[test]
    fn no_answers_too_many_and_another_version_are_refused() {
        let fleet = Fleet::new();
        for count in [0, MAX_ANSWERS + 1] {
            let sealed = answers(count).to_bytes(&fleet.signer);
            assert!(matches!(
                Answers::open(&sealed, &fleet.directory, NOW),
                Err(DocumentError::Malformed { .. })
            ));
        }
        let sealed = Answers {
            version: 9,
            ..answers(1)
        }
        .to_bytes(&fleet.signer);
        assert!(matches!(
            Answers::open(&sealed, &fleet.directory, NOW),
            Err(DocumentError::UnknownVersion { version: 9, .. })
        ));
    }

    #[test]
    fn a_front_end_cannot_answer_for_a_signer() {
        let fleet = Fleet::new();
        let sealed = answers(1).to_bytes(&fleet.frontend);
        assert!(Answers::open(&sealed, &fleet.directory, NOW).is_err());
    }

    proptest! {
        #[test]
        fn any_altered_byte_of_an_answer_is_found(at: prop::sample::Index, flip in 1..=255_u8) {
            let fleet = Fleet::shared();
            let mut sealed = answers(3).to_bytes(&fleet.signer).to_vec();
            let at = at.index(sealed.len());
            sealed[at] ^= flip;
            prop_assert!(Answers::open(&sealed, &fleet.directory, NOW).is_err());
        }
    }
}
