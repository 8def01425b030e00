//! The contract suite: what every adapter must do, as plain async functions over the trait. An adapter's tests call
//! [`suite!`](suite) with a [`Harness`], which makes one test of each case.

pub(crate) mod accepting;
pub(crate) mod batches;
pub(crate) mod ending;
pub(crate) mod law;
pub(crate) mod operating;
pub(crate) mod reading;
pub(crate) mod repeating;
pub(crate) mod revoking;
pub(crate) mod signing;
pub(crate) mod standing_down;
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
        $crate::suite::suite!(@cases $harness, repeating:
            the_same_request_joins_the_job_in_flight,
            a_joiner_leaves_its_statement_and_raises_sign_by,
            a_joiner_never_raises_sign_by_past_two_days_after_not_before,
            joiners_and_waiters_are_bounded,
            the_same_request_of_another_account_or_issuer_is_another_job,
            an_issued_job_is_joined_only_within_its_time_and_never_when_revoked,
            a_job_that_ended_without_a_certificate_is_not_joined,
            a_cancelled_job_is_not_joined,
            an_idempotency_key_answers_with_its_job_until_it_runs_out,
            an_idempotency_key_with_another_request_is_a_conflict,
            an_idempotency_key_of_a_refused_job_begins_anew,
            repeats_and_joins_use_no_quota,
            repeats_within_one_call_join_each_other,
            a_job_that_is_joined_while_it_is_begun_has_a_statement_for_its_time,
        );
        $crate::suite::suite!(@cases $harness, signing:
            of_two_signers_one_begins_a_job,
            who_asks_again_for_what_it_has_begun_gets_the_same_answer,
            a_begun_job_comes_with_everything_that_is_recorded,
            why_a_job_was_not_begun_is_said,
            a_deferred_job_waits_again_without_a_strike,
            only_the_owner_in_its_turn_defers,
            the_first_signature_counts_and_everybody_sees_it,
            a_signature_over_another_intent_is_never_recorded,
            a_disabled_issuer_finishes_nothing,
            the_first_owner_may_still_finish_after_a_take_over,
            what_nobody_began_is_not_finished,
            a_job_that_loses_its_owner_three_times_alone_is_poison,
            a_stuck_owner_loses_its_job_though_it_lives,
            a_live_owner_keeps_its_job,
            a_take_over_brings_no_more_than_asked_for,
            queued_jobs_are_claimable_oldest_first_and_account_by_account,
            claims_come_round_to_every_account,
            nothing_is_claimable_that_could_not_be_begun,
        );
        $crate::suite::suite!(@cases $harness, ending:
            a_refusal_is_told_once_to_the_waiters_and_always_to_readers,
            a_refusal_out_of_turn_changes_nothing,
            a_late_job_is_swept_and_its_waiters_are_returned,
            the_sweep_goes_in_chunks_and_forgets_what_has_run_out,
            only_the_last_waiter_withdraws_a_late_job,
            what_was_begun_and_ends_without_a_certificate_is_revoked,
            an_owner_that_is_gone_leaves_no_late_job_behind,
        );
        $crate::suite::suite!(@cases $harness, revoking:
            a_certificate_is_revoked_once_and_only_a_compromise_raises_the_reason,
            anothers_certificate_is_unknown,
            a_pending_job_is_refused_and_an_operator_cancels_it,
            a_cancelled_job_that_is_signed_all_the_same_is_issued_and_revoked_at_once,
            a_job_without_a_certificate_was_never_issued,
            revocation_dates_are_judged_by_the_stores_time,
            a_cancellation_and_a_signature_at_the_same_instant_make_one_revoked_certificate,
        );
        $crate::suite::suite!(@cases $harness, law:
            a_random_walk_keeps_the_law,
        );
        $crate::suite::suite!(@cases $harness, batches:
            a_bad_row_in_a_hundred_fails_alone,
            a_job_that_stands_twice_in_a_batch_ends_once_and_is_counted_once,
            a_bad_row_among_concurrent_calls_fails_alone,
            a_call_of_too_many_rows_is_refused_whole,
            concurrent_calls_begin_each_job_once,
            batches_in_opposite_orders_are_no_obstacle_to_each_other,
        );
        $crate::suite::suite!(@cases $harness, reading:
            counters_count_what_was_issued_and_revoked,
            a_window_of_issued_certificates_is_paged,
            windows_are_inclusive_and_know_their_times,
            jobs_are_listed_newest_first_and_filtered,
            events_tell_what_happened_to_a_job,
            lanes_show_their_depth_and_how_long_the_oldest_waits,
            many_jobs_are_read_in_one_call,
        );
        $crate::suite::suite!(@cases $harness, operating:
            a_revision_follows_the_head_or_is_refused,
            a_revision_takes_effect_with_its_commit,
            an_audit_chain_has_no_gaps_and_no_branches,
            a_lease_ends_by_itself_or_with_goodbye,
            an_order_to_breakers_holds_until_it_is_taken_back,
            a_store_that_is_opened_again_has_everything,
        );
        $crate::suite::suite!(@cases $harness, standing_down:
            of_two_signers_that_ask_at_the_same_instant_one_stands_down,
            the_last_holder_of_any_of_its_keys_is_refused,
            of_three_holders_one_stands_down_until_it_gives_its_permit_back,
            a_permit_ends_with_the_lease,
            a_permit_is_taken_away_when_the_others_are_gone,
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
