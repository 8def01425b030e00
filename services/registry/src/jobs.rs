//! What operators see of jobs, lanes, certificates, operators and nodes, and the one thing that they do to a certificate: revoke it.

use std::collections::BTreeMap;

use domain::{id::Serial, issuer::Operator, job::State, lane::Lane};
use store::{Job, JobFilter, JobSummary, Outcome, Revoked};
use wire::admin::{
    CertificateDocument, JobDetail, JobDocument, JobEventDocument, JobQuery, LaneDocument, NodeDocument,
    OperatorDocument, Revocation, RevocationDocument, Revoke,
};

use crate::{Order, Registry, RegistryError, describe};

const DEFAULT_LIMIT: u32 = 50;
const GREATEST_LIMIT: u32 = 1_000;

impl Registry {
    /// Jobs, newest first.
    pub async fn jobs(&self, query: JobQuery) -> Result<Vec<JobDocument>, RegistryError> {
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=GREATEST_LIMIT).contains(&limit) {
            return Err(RegistryError::Invalid(format!(
                "limit: must be from 1 to {GREATEST_LIMIT}"
            )));
        }
        let filter = JobFilter {
            state: query.state,
            issuer: query.issuer,
            account: query.account,
            before: query.before,
            limit,
        };
        Ok(self.store.jobs(&filter).await?.into_iter().map(summary).collect())
    }

    /// One job with what happened to it.
    pub async fn job(&self, serial: Serial) -> Result<JobDetail, RegistryError> {
        let job = self.find(serial).await?;
        let events = self.store.events(serial).await?;
        let (ended_at, refusal, detail) = match &job.outcome {
            None => (None, None, None),
            Some(Outcome::Issued { at, .. } | Outcome::Expired { at }) => (Some(*at), None, None),
            Some(Outcome::Refused { id, detail, at }) => (Some(*at), Some(id.clone()), Some(detail.clone())),
            Some(Outcome::Discarded { reason, at }) => (Some(*at), None, Some(reason.clone())),
        };
        Ok(JobDetail {
            profile_version: job.profile_version,
            turn: job.turn,
            strikes: job.strikes,
            owner: job.owner.as_ref().map(ToString::to_string),
            ended_at,
            refusal,
            detail,
            successor: job.successor,
            events: events
                .into_iter()
                .map(|event| JobEventDocument {
                    at: event.at,
                    kind: event.kind,
                    detail: event.detail,
                    by: event.by,
                })
                .collect(),
            job: summary(JobSummary {
                job: job.job,
                lane: job.lane,
                account: job.account,
                profile: job.profile,
                state: job.state,
                accepted_at: job.accepted_at,
                sign_by: job.sign_by,
                revoked: job.revocation.is_some(),
            }),
        })
    }

    /// Lanes with a job or a switch, and the lanes of every issuer that an account issues under.
    pub async fn lanes(&self) -> Result<Vec<LaneDocument>, RegistryError> {
        let snapshot = self.current().await?;
        let served = snapshot
            .accounts
            .keys()
            .filter_map(|account| snapshot.terms(account))
            .map(|terms| Lane {
                issuer: terms.issuer.id.clone(),
                class: terms.profile.class,
            });
        let mut lanes: BTreeMap<Lane, LaneDocument> = served.map(|lane| (lane.clone(), idle(lane))).collect();
        for status in self.store.lanes().await? {
            let document = LaneDocument {
                lane: status.lane.clone(),
                paused: status.switches.paused,
                draining: status.switches.draining,
                diverted: status.switches.diverted,
                queued: status.queued,
                signing: status.signing,
                parked: status.parked,
                oldest_seconds: status.oldest.map(|oldest| oldest.as_secs()),
            };
            lanes.insert(status.lane, document);
        }
        Ok(lanes.into_values().collect())
    }

    /// A certificate, sealed from what the ledger has.
    pub async fn certificate(&self, serial: Serial) -> Result<CertificateDocument, RegistryError> {
        let job = self.find(serial).await?;
        let snapshot = self.current().await?;
        let Some(Outcome::Issued { signature, at }) = &job.outcome else {
            return Err(RegistryError::State(not_issued(&job)));
        };
        let issuer = snapshot.issuers.get(&job.lane.issuer).ok_or_else(|| {
            RegistryError::Internal(format!("issuer {} of job {serial} is not registered", job.lane.issuer))
        })?;
        let der = pki::certificate::seal(&job.tbs, issuer.signature_algorithm, signature);
        let described = describe::certificate(&der);
        Ok(CertificateDocument {
            serial,
            issuer: job.lane.issuer,
            account: job.account,
            profile: job.profile,
            subject: described.subject,
            names: described.names,
            not_before: job.not_before,
            not_after: job.not_after,
            issued_at: *at,
            revocation: job.revocation.map(|revocation| RevocationDocument {
                reason: revocation.reason,
                decided_at: revocation.decided_at,
                revocation_date: revocation.revocation_date,
            }),
            certificate: pki::pem::encode("CERTIFICATE", &der),
        })
    }

    /// Revokes a certificate; a job that has none yet is cancelled, so that it never shows one.
    pub async fn revoke(&self, by: &str, serial: Serial, request: Revoke) -> Result<Revocation, RegistryError> {
        let order = Order {
            by: by.into(),
            kind: "certificate_revoked",
            subject: format!("job:{serial}"),
            reason: request.reason.as_str().into(),
        };
        self.audit.record(&order, "ordered", 1).await?;
        let revocation = store::Revocation {
            job: serial,
            account: None,
            reason: request.reason,
            revocation_date: request.revocation_date,
            cancel_pending: true,
            by: by.into(),
        };
        let outcome = match self.store.revoke(revocation).await? {
            Revoked::Done => "revoked",
            Revoked::Raised => "raised",
            Revoked::Cancelled => "cancelled",
            Revoked::Already(reason) => {
                return Err(RegistryError::State(format!(
                    "certificate {serial} is revoked already ({}); only a later keyCompromise changes that",
                    reason.as_str()
                )));
            }
            Revoked::Pending => return Err(RegistryError::State(format!("job {serial} is not issued yet"))),
            Revoked::Unknown => return Err(unknown(serial)),
            Revoked::NeverIssued(state) => {
                return Err(RegistryError::State(format!(
                    "job {serial} is {state}: there is no certificate"
                )));
            }
            Revoked::InTheFuture => {
                return Err(RegistryError::Invalid("revocation_date: lies in the future".into()));
            }
            Revoked::TooEarly => {
                return Err(RegistryError::Invalid(
                    "revocation_date: only keyCompromise reaches into the past, and never before notBefore".into(),
                ));
            }
        };
        self.audit.record(&order, outcome, 1).await?;
        Ok(Revocation {
            serial,
            outcome: outcome.into(),
        })
    }

    /// Every operator.
    pub async fn operators(&self) -> Result<Vec<OperatorDocument>, RegistryError> {
        let document = |operator: &Operator| OperatorDocument {
            id: operator.id.clone(),
            role: operator.role,
            client_certificates: operator
                .client_certificates
                .iter()
                .map(|digest| format!("{digest:?}"))
                .collect(),
        };
        let snapshot = self.current().await?;
        Ok(snapshot.operators.values().map(|operator| document(operator)).collect())
    }

    /// Every enrolled node, with what its process last said.
    pub async fn nodes(&self) -> Result<Vec<NodeDocument>, RegistryError> {
        let snapshot = self.current().await?;
        let announced = self.store.incarnations().await?;
        let now = self.store.now().await?;
        let document = |node: &domain::issuer::Node| {
            let latest = announced
                .iter()
                .filter(|announced| announced.announcement.incarnation.node == node.id)
                .max_by_key(|announced| announced.seen);
            NodeDocument {
                id: node.id.clone(),
                role: node.role,
                not_after: node.not_after,
                revoked: node.revoked,
                alive: latest.is_some_and(|latest| latest.lease_until > now),
                version: latest.map(|latest| latest.announcement.version.clone()),
                revision: latest.map(|latest| latest.announcement.revision),
                in_flight: latest.map(|latest| latest.announcement.in_flight),
            }
        };
        Ok(snapshot.nodes.values().map(|node| document(node)).collect())
    }

    async fn find(&self, serial: Serial) -> Result<Job, RegistryError> {
        self.store.job(serial).await?.ok_or_else(|| unknown(serial))
    }
}

fn unknown(serial: Serial) -> RegistryError {
    RegistryError::Unknown(format!("serial {serial}"), "bulkhead job list")
}

fn not_issued(job: &Job) -> String {
    match (&job.state, &job.successor) {
        (_, Some(successor)) => format!("job {} was resubmitted as {successor}", job.job),
        (State::Queued | State::Signing, None) => {
            format!("job {} is {}: there is no certificate yet", job.job, job.state)
        }
        (state, None) => format!(
            "job {} is {state}: there is no certificate; see `bulkhead job show {}`",
            job.job, job.job
        ),
    }
}

fn idle(lane: Lane) -> LaneDocument {
    LaneDocument {
        lane,
        paused: false,
        draining: false,
        diverted: false,
        queued: 0,
        signing: 0,
        parked: 0,
        oldest_seconds: None,
    }
}

fn summary(job: JobSummary) -> JobDocument {
    JobDocument {
        job: job.job,
        issuer: job.lane.issuer,
        class: job.lane.class,
        account: job.account,
        profile: job.profile,
        state: job.state,
        accepted_at: job.accepted_at,
        sign_by: job.sign_by,
        revoked: job.revoked,
    }
}
