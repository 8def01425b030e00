//! The operators' API: which path does what, and what role it takes. The documents are in `wire::admin`.

mod actor;
mod body;
mod nodes;
mod presence;
mod serve;

use std::{any::Any, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use domain::{
    id::{IssuerId, ProfileId, Serial},
    issuer::{OperatorRole, Profile},
};
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};
use wire::admin::{
    AccountDocument, AddAccount, Because, CertificateDocument, Changed, Csr, GenerateKey, IssuerDocument, JobDetail,
    JobDocument, JobQuery, KeyReport, LaneDocument, MakeCsr, NewAccount, NodeDocument, OperatorDocument, PutProfile,
    RegisterIssuer, Revocation, Revoke,
};
use wire::{
    enrol::{Invite, Invited},
    operate::{BindIssuer, FleetDocument, ForceBreaker, ForcedBreaker, IssuerBreakers, MarkDestroyed, MarkedDestroyed},
    problem::ProblemId,
};

use crate::{
    Registry, RegistryError,
    error::{Answer, problem},
};
use actor::Actor;
use body::Body;
pub use serve::{Context, serve};

type Shared = State<Arc<Registry>>;

/// How long an order may take: making an RSA-4096 key on a slow token is the longest.
const REQUEST_LIMIT: Duration = Duration::from_mins(2);
/// Orders at a time; others wait for their turn within their own limit.
const REQUESTS: usize = 64;

const OFFICER: OperatorRole = OperatorRole::SecurityOfficer;

/// The routes. `body_limit` bounds request bodies in bytes; the history of an imported issuer is the largest.
pub(crate) fn router(registry: Arc<Registry>, body_limit: usize) -> Router {
    Router::new()
        .route("/v1/issuers", get(issuers).post(register_issuer))
        .route("/v1/issuers/{id}", get(issuer))
        .route("/v1/issuers/{id}/disable", post(disable_issuer))
        .route("/v1/issuers/{id}/enable", post(enable_issuer))
        .route("/v1/issuers/{id}/bind", post(bind_issuer))
        .route("/v1/issuers/{id}/mark-destroyed", post(mark_issuer_destroyed))
        .route("/v1/keys", post(generate_key))
        .route("/v1/keys/csr", post(make_csr))
        .route("/v1/profiles", get(profiles).post(put_profile))
        .route("/v1/profiles/{id}", get(profile))
        .route("/v1/accounts", get(accounts).post(add_account))
        .route("/v1/jobs", get(jobs))
        .route("/v1/jobs/{serial}", get(job))
        .route("/v1/lanes", get(lanes))
        .route("/v1/certificates/{serial}", get(certificate))
        .route("/v1/certificates/{serial}/revoke", post(revoke))
        .route("/v1/breakers", get(breakers))
        .route("/v1/breakers/{issuer}/force", post(force_breaker))
        .route("/v1/fleet", get(fleet))
        .route("/v1/operators", get(operators))
        .route("/v1/nodes", get(list_nodes))
        .route("/v1/nodes/invitations", post(invite_node))
        .fallback(|| async { RegistryError::Unknown("this path".into(), "bulkhead --help") })
        .method_not_allowed_fallback(|| async {
            let description = "this path does not know this method";
            problem(StatusCode::METHOD_NOT_ALLOWED, ProblemId::MethodNotAllowed, description)
        })
        .layer(DefaultBodyLimit::max(body_limit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            REQUEST_LIMIT,
        ))
        .layer(GlobalConcurrencyLimitLayer::new(REQUESTS))
        .with_state(registry.clone())
        .merge(nodes::router(registry))
}

/// A panic is one order's, not the process's.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("an operator's order panicked");
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        ProblemId::Internal,
        "something is wrong on this side; it was logged",
    )
}

async fn issuers(State(registry): Shared, _: Actor) -> Answer<Vec<IssuerDocument>> {
    Ok(Json(registry.issuers().await?))
}

async fn issuer(State(registry): Shared, _: Actor, Path(id): Path<String>) -> Answer<IssuerDocument> {
    Ok(Json(registry.issuer(&name::<IssuerId>(&id)?).await?))
}

async fn register_issuer(
    State(registry): Shared,
    actor: Actor,
    Body(request): Body<RegisterIssuer>,
) -> Answer<Changed> {
    actor.must_be(OFFICER)?;
    reason(&request.reason)?;
    Ok(Json(registry.register_issuer(&actor.by(), request).await?))
}

async fn disable_issuer(
    State(registry): Shared,
    actor: Actor,
    Path(id): Path<String>,
    Body(because): Body<Because>,
) -> Answer<Changed> {
    switch_issuer(&registry, &actor, &id, false, &because.reason).await
}

async fn enable_issuer(
    State(registry): Shared,
    actor: Actor,
    Path(id): Path<String>,
    Body(because): Body<Because>,
) -> Answer<Changed> {
    switch_issuer(&registry, &actor, &id, true, &because.reason).await
}

async fn switch_issuer(registry: &Registry, actor: &Actor, id: &str, enabled: bool, because: &str) -> Answer<Changed> {
    actor.must_be(OFFICER)?;
    reason(because)?;
    Ok(Json(
        registry
            .switch_issuer(&actor.by(), &name(id)?, enabled, because)
            .await?,
    ))
}

async fn bind_issuer(
    State(registry): Shared,
    actor: Actor,
    Path(id): Path<String>,
    Body(request): Body<BindIssuer>,
) -> Answer<Changed> {
    actor.must_be(OFFICER)?;
    reason(&request.reason)?;
    Ok(Json(registry.bind_issuer(&actor.by(), &name(&id)?, request).await?))
}

async fn mark_issuer_destroyed(
    State(registry): Shared,
    actor: Actor,
    Path(id): Path<String>,
    Body(request): Body<MarkDestroyed>,
) -> Answer<MarkedDestroyed> {
    actor.must_be(OFFICER)?;
    reason(&request.reason)?;
    Ok(Json(
        registry
            .mark_issuer_destroyed(&actor.by(), &name(&id)?, request)
            .await?,
    ))
}

async fn generate_key(State(registry): Shared, actor: Actor, Body(request): Body<GenerateKey>) -> Answer<KeyReport> {
    actor.must_be(OFFICER)?;
    reason(&request.reason)?;
    Ok(Json(registry.generate_key(&actor.by(), request).await?))
}

async fn make_csr(State(registry): Shared, actor: Actor, Body(request): Body<MakeCsr>) -> Answer<Csr> {
    actor.must_be(OFFICER)?;
    Ok(Json(registry.make_csr(request).await?))
}

async fn profiles(State(registry): Shared, _: Actor) -> Answer<Vec<Profile>> {
    Ok(Json(registry.profiles().await?))
}

async fn profile(State(registry): Shared, _: Actor, Path(id): Path<String>) -> Answer<Profile> {
    Ok(Json(registry.profile(&name::<ProfileId>(&id)?).await?))
}

async fn put_profile(State(registry): Shared, actor: Actor, Body(request): Body<PutProfile>) -> Answer<Changed> {
    actor.must_be(OFFICER)?;
    reason(&request.reason)?;
    Ok(Json(registry.put_profile(&actor.by(), request).await?))
}

async fn accounts(State(registry): Shared, _: Actor) -> Answer<Vec<AccountDocument>> {
    Ok(Json(registry.accounts().await?))
}

async fn add_account(State(registry): Shared, actor: Actor, Body(request): Body<AddAccount>) -> Answer<NewAccount> {
    actor.must_be(OFFICER)?;
    reason(&request.reason)?;
    Ok(Json(registry.add_account(&actor.by(), request).await?))
}

async fn jobs(
    State(registry): Shared,
    _: Actor,
    query: Result<Query<JobQuery>, QueryRejection>,
) -> Answer<Vec<JobDocument>> {
    let Query(query) = query.map_err(|error| RegistryError::Invalid(error.body_text()))?;
    Ok(Json(registry.jobs(query).await?))
}

async fn job(State(registry): Shared, _: Actor, Path(serial): Path<String>) -> Answer<JobDetail> {
    Ok(Json(registry.job(name::<Serial>(&serial)?).await?))
}

async fn lanes(State(registry): Shared, _: Actor) -> Answer<Vec<LaneDocument>> {
    Ok(Json(registry.lanes().await?))
}

async fn certificate(State(registry): Shared, _: Actor, Path(serial): Path<String>) -> Answer<CertificateDocument> {
    Ok(Json(registry.certificate(name(&serial)?).await?))
}

async fn revoke(
    State(registry): Shared,
    actor: Actor,
    Path(serial): Path<String>,
    Body(request): Body<Revoke>,
) -> Answer<Revocation> {
    actor.must_be(OperatorRole::Operator)?;
    Ok(Json(registry.revoke(&actor.by(), name(&serial)?, request).await?))
}

async fn breakers(State(registry): Shared, _: Actor) -> Answer<Vec<IssuerBreakers>> {
    Ok(Json(registry.breakers().await?))
}

async fn force_breaker(
    State(registry): Shared,
    actor: Actor,
    Path(issuer): Path<String>,
    Body(request): Body<ForceBreaker>,
) -> Answer<ForcedBreaker> {
    actor.must_be(OperatorRole::Operator)?;
    reason(&request.reason)?;
    Ok(Json(
        registry.force_breaker(&actor.by(), &name(&issuer)?, request).await?,
    ))
}

async fn fleet(State(registry): Shared, _: Actor) -> Answer<Vec<FleetDocument>> {
    Ok(Json(registry.fleet().await?))
}

async fn operators(State(registry): Shared, _: Actor) -> Answer<Vec<OperatorDocument>> {
    Ok(Json(registry.operators().await?))
}

async fn invite_node(State(registry): Shared, actor: Actor, Body(invite): Body<Invite>) -> Answer<Invited> {
    actor.must_be(OFFICER)?;
    reason(&invite.reason)?;
    Ok(Json(registry.invite_node(&actor.by(), invite).await?))
}

async fn list_nodes(State(registry): Shared, _: Actor) -> Answer<Vec<NodeDocument>> {
    Ok(Json(registry.nodes().await?))
}

/// A name or a serial in a path.
fn name<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, RegistryError> {
    text.parse()
        .map_err(|error: T::Err| RegistryError::Invalid(error.to_string()))
}

/// A change needs a reason that says something and that fits into a line.
fn reason(text: &str) -> Result<(), RegistryError> {
    const LONGEST: usize = 1_000;
    if text.trim().is_empty() || text.len() > LONGEST {
        return Err(RegistryError::NoReason(LONGEST));
    }
    Ok(())
}
