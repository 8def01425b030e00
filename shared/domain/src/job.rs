//! A job, its states, and the law of its transitions. Both stores enforce the same law in their WHERE clauses; their contract suite
//! compares them with [`Position::after`] step by step.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where a job is. The first three are open: they have a row in the `open` table. The others are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for a signer.
    Queued,
    /// A signer has begun it.
    Signing,
    /// Set aside, until an operator resubmits or discards it.
    Parked,
    /// There is a certificate.
    Issued,
    /// It was refused after acceptance.
    Refused,
    /// Nobody wanted it any more.
    Expired,
    /// An operator discarded it.
    Discarded,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Signing,
        Self::Parked,
        Self::Issued,
        Self::Refused,
        Self::Expired,
        Self::Discarded,
    ];

    /// Whether something may still come of the job.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Signing | Self::Parked)
    }

    /// The state as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Signing => "signing",
            Self::Parked => "parked",
            Self::Issued => "issued",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Discarded => "discarded",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text is not a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a state of a job: use queued, signing, parked, issued, refused, expired or discarded")]
pub struct UnknownState(String);

impl FromStr for State {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| UnknownState(text.into()))
    }
}

/// How many times a job may be taken over. Each time it runs alone; one that loses its owner once more after that is parked as poison.
///
/// Losing an owner proves little by itself: whatever ends a process ends it for every job that it had begun. A job that was begun with others
/// and lost with them is taken over with its first strike; only owners that it loses while it runs alone speak against it.
pub const STRIKES: u8 = 3;

/// What of a job the law looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// State.
    pub state: State,
    /// How many times it was begun or taken over. A signature may exist once this is over zero.
    pub turn: u32,
    /// How many times it was taken over from an owner that was lost.
    pub strikes: u8,
}

/// What somebody wants to do to a job, with the facts on which it depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A signer begins it.
    Begin {
        /// The issuer's usage bit is on.
        usage_on: bool,
        /// The lane is paused.
        paused: bool,
        /// `sign_by` is ahead.
        in_time: bool,
    },
    /// A signer takes it from an owner that is gone or stuck.
    TakeOver {
        /// The owner's lease is over, or it began longer ago than three operation limits.
        owner_lost: bool,
        /// The issuer's usage bit is on.
        usage_on: bool,
        /// `sign_by` is ahead.
        in_time: bool,
    },
    /// The owner puts it back, unharmed.
    Defer {
        /// The turn in which the owner began it.
        turn: u32,
    },
    /// Somebody who began it has a signature over its intent.
    Finish {
        /// The signature is over the recorded intent.
        intent_matches: bool,
        /// The issuer's usage bit is on.
        usage_on: bool,
    },
    /// A signer refuses it: in its turn, or before anyone began it (`None`).
    Refuse {
        /// The turn in which the owner began it.
        turn: Option<u32>,
    },
    /// An operator discards it.
    Discard,
    /// The sweep, or the front end whose wait was the only one.
    Expire {
        /// `sign_by` is past.
        past: bool,
    },
    /// The sweep ends what was begun, whose owner is gone and which nobody may take over any more.
    Lapse {
        /// The owner's lease is over.
        owner_lost: bool,
        /// `sign_by` is past.
        past: bool,
    },
    /// An operator sets it aside.
    Park,
    /// An operator puts it back.
    Resubmit {
        /// `sign_by` is ahead.
        in_time: bool,
    },
}

impl Position {
    /// A job that was just accepted: queued, or parked if its lane is diverted.
    pub const fn accepted(diverted: bool) -> Self {
        Self {
            state: if diverted { State::Parked } else { State::Queued },
            turn: 0,
            strikes: 0,
        }
    }

    /// Where the job is after `step`; `None` if the law forbids it, and nothing changes.
    pub fn after(self, step: Step) -> Option<Self> {
        use State::{Discarded, Expired, Issued, Parked, Queued, Refused, Signing};
        let Self { state, turn, strikes } = self;
        match (state, step) {
            (
                Queued,
                Step::Begin {
                    usage_on: true,
                    paused: false,
                    in_time: true,
                },
            ) => Some(Self {
                state: Signing,
                turn: turn + 1,
                strikes,
            }),
            (Signing, Step::TakeOver { owner_lost: true, .. }) if strikes >= STRIKES => Some(Self {
                state: Parked,
                turn,
                strikes,
            }),
            (
                Signing,
                Step::TakeOver {
                    owner_lost: true,
                    usage_on: true,
                    in_time: true,
                },
            ) => Some(Self {
                state: Signing,
                turn: turn + 1,
                strikes: strikes + 1,
            }),
            (Signing, Step::Defer { turn: mine }) if mine == turn => Some(Self {
                state: Queued,
                turn,
                strikes,
            }),
            // Fenced by content, not by turn: whoever began it, the first signature over the intent wins.
            (
                Signing | Queued,
                Step::Finish {
                    intent_matches: true,
                    usage_on: true,
                },
            ) if turn > 0 => Some(Self {
                state: Issued,
                turn,
                strikes,
            }),
            (Signing, Step::Refuse { turn: Some(mine) }) if mine == turn => Some(Self {
                state: Refused,
                turn,
                strikes,
            }),
            (Queued, Step::Refuse { .. }) => Some(Self {
                state: Refused,
                turn,
                strikes,
            }),
            (Queued | Parked, Step::Discard) => Some(Self {
                state: Discarded,
                turn,
                strikes,
            }),
            (Queued | Parked, Step::Expire { past: true })
            | (
                Signing,
                Step::Lapse {
                    owner_lost: true,
                    past: true,
                },
            ) => Some(Self {
                state: Expired,
                turn,
                strikes,
            }),
            (Queued, Step::Park) => Some(Self {
                state: Parked,
                turn,
                strikes,
            }),
            (Parked, Step::Resubmit { in_time: true }) => Some(Self {
                state: Queued,
                turn,
                strikes: 0,
            }),
            _ => None,
        }
    }

    /// Whether the serial must be entered as revoked when the job ends here: a signature may exist that nobody will see.
    pub const fn leaves_a_doubt(self) -> bool {
        self.turn > 0 && matches!(self.state, State::Refused | State::Expired | State::Discarded)
    }
}

/// Why a certificate was revoked (RFC 5280, 5.3.1, and the names that HVCA's clients know).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names are RFC 5280's own")]
pub enum RevocationReason {
    Unspecified,
    KeyCompromise,
    AffiliationChanged,
    Superseded,
    CessationOfOperation,
    PrivilegeWithdrawn,
}

impl RevocationReason {
    /// Every reason that may be given.
    pub const ALL: [Self; 6] = [
        Self::Unspecified,
        Self::KeyCompromise,
        Self::AffiliationChanged,
        Self::Superseded,
        Self::CessationOfOperation,
        Self::PrivilegeWithdrawn,
    ];

    /// The reason as HVCA writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }

    /// CRLReason code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
            Self::PrivilegeWithdrawn => 9,
        }
    }
}

/// The text is not a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a revocation reason: use unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation or privilegeWithdrawn"
)]
pub struct UnknownReason(String);

impl FromStr for RevocationReason {
    type Err = UnknownReason;
    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| UnknownReason(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<(bool, bool, bool)>().prop_map(|(usage_on, paused, in_time)| Step::Begin {
                usage_on,
                paused,
                in_time
            }),
            any::<(bool, bool, bool)>().prop_map(|(owner_lost, usage_on, in_time)| Step::TakeOver {
                owner_lost,
                usage_on,
                in_time
            }),
            (0..5_u32).prop_map(|turn| Step::Defer { turn }),
            any::<(bool, bool)>().prop_map(|(intent_matches, usage_on)| Step::Finish {
                intent_matches,
                usage_on
            }),
            proptest::option::of(0..5_u32).prop_map(|turn| Step::Refuse { turn }),
            Just(Step::Discard),
            any::<bool>().prop_map(|past| Step::Expire { past }),
            any::<(bool, bool)>().prop_map(|(owner_lost, past)| Step::Lapse { owner_lost, past }),
            Just(Step::Park),
            any::<bool>().prop_map(|in_time| Step::Resubmit { in_time }),
        ]
    }

    proptest! {
        #[test]
        fn no_sequence_of_steps_breaks_the_law(diverted: bool, steps in proptest::collection::vec(step(), 0..60)) {
            let mut position = Position::accepted(diverted);
            for step in steps {
                let Some(next) = position.after(step) else { continue };
                prop_assert!(position.state.is_open(), "an ended job moved: {position:?} {step:?}");
                prop_assert!(next.turn >= position.turn);
                if next.state == State::Issued {
                    prop_assert!(next.turn > 0, "issued without having been begun");
                    let usage_on_and_intent_matches =
                        matches!(step, Step::Finish { intent_matches: true, usage_on: true });
                    prop_assert!(usage_on_and_intent_matches);
                }
                prop_assert!(next.strikes <= STRIKES, "poison is signed");
                position = next;
            }
        }
    }

    #[test]
    fn a_job_that_loses_its_owner_three_times_alone_is_parked() {
        let step = Step::TakeOver {
            owner_lost: true,
            usage_on: true,
            in_time: true,
        };
        // Begun with others: what ended that owner was not necessarily this job.
        let mut position = Position {
            state: State::Signing,
            turn: 1,
            strikes: 0,
        };
        for strikes in 1..=3 {
            position = position.after(step).unwrap();
            let alone = Position {
                state: State::Signing,
                turn: u32::from(strikes) + 1,
                strikes,
            };
            assert_eq!(position, alone);
        }
        assert_eq!(
            position.after(step),
            Some(Position {
                state: State::Parked,
                turn: 4,
                strikes: 3
            })
        );
    }

    #[test]
    fn a_job_whose_owner_is_gone_and_whose_time_is_past_does_not_stay_open_for_ever() {
        let begun = Position {
            state: State::Signing,
            turn: 1,
            strikes: 0,
        };
        assert_eq!(begun.after(Step::Expire { past: true }), None);
        let step = |owner_lost, past| Step::Lapse { owner_lost, past };
        assert_eq!(begun.after(step(false, true)), None);
        assert_eq!(begun.after(step(true, false)), None);
        let lapsed = begun.after(step(true, true)).unwrap();
        assert_eq!(lapsed.state, State::Expired);
        assert!(lapsed.leaves_a_doubt());
    }

    #[test]
    fn a_deferral_costs_no_strike_and_belongs_to_its_turn() {
        let begun = Position {
            state: State::Signing,
            turn: 4,
            strikes: 1,
        };
        assert_eq!(begun.after(Step::Defer { turn: 3 }), None);
        assert_eq!(
            begun.after(Step::Defer { turn: 4 }),
            Some(Position {
                state: State::Queued,
                turn: 4,
                strikes: 1
            })
        );
    }
}
