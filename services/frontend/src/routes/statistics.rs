//! `GET /v2/stats/{issued,revoked,expiring}`: certificates in a window of time, page by page.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use domain::time::Timestamp;
use http::{HeaderName, HeaderValue, Uri};
use store::{Statistics, StatisticsQuery};
use wire::{
    hvca::StatisticsEntry,
    problem::{Problem, ProblemId},
};

use crate::{App, authenticate::Caller, error::ApiError};

/// How many entries the whole window has.
const TOTAL_COUNT: HeaderName = HeaderName::from_static("total-count");
/// Where the other pages are. Not `Link`: the contract's own name.
const LINKS: HeaderName = HeaderName::from_static("links");

/// The window that is taken when nothing is said: the last ten minutes.
const DEFAULT_S: i64 = 600;

/// Entries a page, unless the query says otherwise, and at most.
const PER_PAGE: u32 = 100;
const MOST_PER_PAGE: u32 = 1000;

/// Certificates issued in the window.
#[utoipa::path(
    get,
    operation_id = "listIssued",
    path = "/stats/issued",
    tag = "account",
    params(
        ("from" = Option<i64>, Query, description = "First second, UNIX. Default: ten minutes before `to`"),
        ("to" = Option<i64>, Query, description = "Last second, UNIX, at most 30 days after `from`. Default: now"),
        ("page" = Option<u32>, Query, description = "From 1"),
        ("per_page" = Option<u32>, Query, description = "1 to 1000. Default: 100"),
    ),
    responses(
        (status = 200, description = "One page", body = Vec<StatisticsEntry>,
            headers(("Total-Count" = String, description = "Entries of all pages"), ("Links" = String, description = "Other pages, empty if there are none"))),
        (status = 422, description = "The window or the page cannot be", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn issued(State(app): State<App>, caller: Caller, uri: Uri) -> Result<Response, ApiError> {
    page(&app, &caller, &uri, Statistics::Issued, "/stats/issued").await
}

/// Certificates revoked in the window.
#[utoipa::path(
    get,
    operation_id = "listRevoked",
    path = "/stats/revoked",
    tag = "account",
    params(
        ("from" = Option<i64>, Query, description = "First second, UNIX. Default: ten minutes before `to`"),
        ("to" = Option<i64>, Query, description = "Last second, UNIX, at most 30 days after `from`. Default: now"),
        ("page" = Option<u32>, Query, description = "From 1"),
        ("per_page" = Option<u32>, Query, description = "1 to 1000. Default: 100"),
    ),
    responses(
        (status = 200, description = "One page", body = Vec<StatisticsEntry>,
            headers(("Total-Count" = String, description = "Entries of all pages"), ("Links" = String, description = "Other pages, empty if there are none"))),
        (status = 422, description = "The window or the page cannot be", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn revoked(State(app): State<App>, caller: Caller, uri: Uri) -> Result<Response, ApiError> {
    page(&app, &caller, &uri, Statistics::Revoked, "/stats/revoked").await
}

/// Certificates that end in the window.
#[utoipa::path(
    get,
    operation_id = "listExpiring",
    path = "/stats/expiring",
    tag = "account",
    params(
        ("from" = Option<i64>, Query, description = "First second, UNIX. Default: ten minutes before `to`"),
        ("to" = Option<i64>, Query, description = "Last second, UNIX, at most 30 days after `from`. Default: now"),
        ("page" = Option<u32>, Query, description = "From 1"),
        ("per_page" = Option<u32>, Query, description = "1 to 1000. Default: 100"),
    ),
    responses(
        (status = 200, description = "One page", body = Vec<StatisticsEntry>,
            headers(("Total-Count" = String, description = "Entries of all pages"), ("Links" = String, description = "Other pages, empty if there are none"))),
        (status = 422, description = "The window or the page cannot be", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = [])),
)]
pub async fn expiring(State(app): State<App>, caller: Caller, uri: Uri) -> Result<Response, ApiError> {
    page(&app, &caller, &uri, Statistics::Expiring, "/stats/expiring").await
}

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    from: i64,
    to: i64,
    page: u32,
    per_page: u32,
}

async fn page(app: &App, caller: &Caller, uri: &Uri, statistics: Statistics, path: &str) -> Result<Response, ApiError> {
    let longest = app.config.frontend.statistics_window;
    let window = Window::read(uri, app.now(), longest)?;
    let query = StatisticsQuery {
        account: caller.account().clone(),
        statistics,
        from: window.from,
        to: window.to,
        page: window.page,
        per_page: window.per_page,
    };
    let found = app.ask(app.store.statistics(&query)).await?;
    let entries: Vec<_> = found
        .entries
        .iter()
        .map(|entry| StatisticsEntry {
            serial_number: entry.job,
            not_before: entry.not_before,
            not_after: entry.not_after,
        })
        .collect();
    let links = HeaderValue::from_str(&window.links(path, found.total))
        .expect("a path of ours and decimal numbers are visible characters");
    let headers = [(TOTAL_COUNT, found.total.into()), (LINKS, links)];
    Ok((headers, Json(entries)).into_response())
}

impl Window {
    fn read(uri: &Uri, now: Timestamp, longest: Duration) -> Result<Self, ApiError> {
        let Query(query) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| ApiError::new(ProblemId::InvalidRequest, "the query cannot be read"))?;
        let number = |name: &str| -> Result<Option<i64>, ApiError> {
            let found = query.iter().find(|(key, value)| key == name && !value.is_empty());
            found
                .map(|(_, value)| {
                    value
                        .parse()
                        .map_err(|_| ApiError::field(name, "must be a whole number"))
                })
                .transpose()
        };
        let counted = |name: &str, default: u32, most: u32| match number(name)? {
            None => Ok(default),
            Some(given) => u32::try_from(given)
                .ok()
                .filter(|given| (1..=most).contains(given))
                .ok_or_else(|| ApiError::field(name, &format!("must be from 1 to {most}"))),
        };
        let to = number("to")?;
        let from = number("from")?;
        let to = to.unwrap_or_else(|| from.map_or(now.as_secs(), |from| now.as_secs().max(from)));
        let from = from.unwrap_or(to.saturating_sub(DEFAULT_S));
        if from > to {
            return Err(ApiError::field("from", "is after `to`"));
        }
        if to.abs_diff(from) > longest.as_secs() {
            let days = longest.as_secs() / 86_400;
            return Err(ApiError::field(
                "from",
                &format!("is more than {days} days before `to`"),
            ));
        }
        Ok(Self {
            from,
            to,
            page: counted("page", 1, u32::MAX)?,
            per_page: counted("per_page", PER_PAGE, MOST_PER_PAGE)?,
        })
    }

    /// The pages around this one, in the contract's own form; empty when there is but one.
    fn links(&self, path: &str, total: u64) -> String {
        let last = u32::try_from(total.div_ceil(u64::from(self.per_page)))
            .unwrap_or(u32::MAX)
            .max(1);
        let mut links = Vec::new();
        let mut link = |page: u32, relation: &str| {
            let Self { from, to, per_page, .. } = self;
            links.push(format!(
                "<{path}?from={from}&to={to}&page={page}&per_page={per_page}>; rel=\"{relation}\""
            ));
        };
        if self.page > 1 {
            link((self.page - 1).min(last), "previous");
        }
        if self.page < last {
            link(self.page + 1, "next");
        }
        if last > 1 {
            link(last, "last");
        }
        links.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn read(query: &str) -> Result<Window, ApiError> {
        let uri = format!("/v2/stats/issued{query}").parse().unwrap();
        Window::read(&uri, NOW, Duration::from_hours(30 * 24))
    }

    #[test]
    fn without_a_query_it_is_the_last_ten_minutes() {
        let window = read("").unwrap();
        let ten_minutes = Window {
            from: 1_799_999_400,
            to: 1_800_000_000,
            page: 1,
            per_page: 100,
        };
        assert_eq!(window, ten_minutes);
        assert_eq!(read("?page=&foo=bar").unwrap(), ten_minutes);
        assert_eq!(read("?to=1000").unwrap().from, 400);
        assert_eq!(read("?from=1799999000").unwrap().to, 1_800_000_000);
    }

    #[test]
    fn impossible_windows_and_pages_are_named() {
        for (query, field) in [
            ("?from=2&to=1", "from"),
            ("?from=0&to=2592001", "from"),
            ("?from=x", "from"),
            ("?to=1e9", "to"),
            ("?page=0", "page"),
            ("?page=-1", "page"),
            ("?per_page=1001", "per_page"),
            ("?per_page=0", "per_page"),
            ("?from=-9223372036854775808&to=9223372036854775807", "from"),
        ] {
            let error = read(query).unwrap_err();
            assert_eq!(error.status().as_u16(), 422, "{query}");
            assert!(error.description().starts_with(field), "{query}: {error:?}");
        }
        assert_eq!(read("?from=0&to=2592000").unwrap().to, 2_592_000, "30 days are allowed");
        assert_eq!(read("?from=%zz").unwrap_err().status().as_u16(), 422);
    }

    #[test]
    fn links_lead_to_the_pages_around() {
        let window = read("?from=1&to=2&page=3&per_page=10").unwrap();
        assert_eq!(
            window.links("/stats/issued", 41),
            "</stats/issued?from=1&to=2&page=2&per_page=10>; rel=\"previous\", \
             </stats/issued?from=1&to=2&page=4&per_page=10>; rel=\"next\", \
             </stats/issued?from=1&to=2&page=5&per_page=10>; rel=\"last\""
        );
        assert_eq!(read("").unwrap().links("/stats/issued", 100), "");
        assert_eq!(read("").unwrap().links("/stats/issued", 0), "");
        assert!(!read("?page=9").unwrap().links("/stats/issued", 150).contains("next"));
    }
}
