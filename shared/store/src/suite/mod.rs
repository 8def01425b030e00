//! The contract suite: what every adapter must do, as plain async functions over the trait. An adapter's tests call
//! [`suite!`](suite) with a [`Harness`], which makes one test of each case.

pub(crate) mod accepting;
pub(crate) mod signing;
pub(crate) mod world;

use std::sync::Arc;

use async_trait::async_trait;
use domain::time::Clock;

use crate::Store;

/// What the suite needs of an adapter: a store of its own for each harness.
#[async_trait]
pub(crate) trait Harness: Send + Sync {
    /// Opens the harness's store: an empty one the first time, and what was left there when it is opened again after every handle
    /// of the first was dropped.
    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn Store>;
}

/// One test for each case of the suite, over a fresh harness each.
macro_rules! suite {
    ($harness:expr) => {
        $crate::suite::suite!(@cases $harness, accepting:
            a_new_job_is_queued_and_everything_about_it_is_kept,
            a_job_of_a_diverted_lane_is_parked,
            a_paused_lane_accepts_and_a_draining_one_does_not,
            an_issuer_that_may_not_issue_is_refused_before_anything_is_written,
            the_purpose_decides_which_usage_bit_counts,
            a_full_lane_refuses_and_others_do_not_notice,
            one_account_may_not_fill_a_lane,
            an_account_has_only_so_many_jobs_in_flight,
            a_quota_is_reserved_and_given_back_when_no_certificate_comes,
            a_serial_that_is_taken_fails_alone,
            a_key_that_must_be_unique_is_certified_once,
            a_front_end_learns_the_head_revision,
        );
        $crate::suite::suite!(@cases $harness, signing:
            of_two_signers_one_begins_a_job,
            a_begun_job_comes_with_everything_that_is_recorded,
            why_a_job_was_not_begun_is_said,
            a_deferred_job_waits_again_without_a_strike,
            only_the_owner_in_its_turn_defers,
            the_first_signature_counts_and_everybody_sees_it,
            a_signature_over_another_intent_is_never_recorded,
            a_disabled_issuer_finishes_nothing,
            the_first_owner_may_still_finish_after_a_take_over,
            what_nobody_began_is_not_finished,
            a_lost_owners_job_is_taken_over_and_the_third_time_it_is_poison,
            a_stuck_owner_loses_its_job_though_it_lives,
            a_live_owner_keeps_its_job,
            a_take_over_brings_no_more_than_asked_for,
            queued_jobs_are_claimable_oldest_first_and_account_by_account,
            nothing_is_claimable_that_could_not_be_begun,
        );
    };
    (@cases $harness:expr, $module:ident: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            $crate::suite::$module::$case(&$harness).await;
        }
    )*};
}
pub(crate) use suite;
