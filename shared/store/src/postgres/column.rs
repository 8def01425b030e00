//! How the domain's values stand in columns: names and states as text, serials and digests as bytes, times as milliseconds.

use std::{fmt::Display, str::FromStr};

use domain::{
    bytes::Digest,
    id::{IssuerId, Serial},
    issuer::{IssuerState, Purpose},
    lane::{Class, Lane},
    time::Timestamp,
};
use sqlx::{Decode, Row, Type, postgres::PgRow};

use super::fault::Fault;

/// A column as PostgreSQL has it.
pub(super) fn get<'r, T>(row: &'r PgRow, column: &'static str) -> Result<T, Fault>
where
    T: Decode<'r, sqlx::Postgres> + Type<sqlx::Postgres>,
{
    Ok(row.try_get(column)?)
}

fn damaged(column: &str, error: impl Display) -> Fault {
    Fault::damaged(format!("{column}: {error}"))
}

/// A value whose text is parsed by `FromStr`, which refuses what cannot be.
pub(super) fn parsed<T: FromStr<Err: Display>>(row: &PgRow, column: &'static str) -> Result<T, Fault> {
    get::<&str>(row, column)?
        .parse()
        .map_err(|error| damaged(column, error))
}

/// The same, where there may be none.
pub(super) fn parsed_if<T: FromStr<Err: Display>>(row: &PgRow, column: &'static str) -> Result<Option<T>, Fault> {
    let text = get::<Option<&str>>(row, column)?;
    text.map(|text| text.parse().map_err(|error| damaged(column, error)))
        .transpose()
}

/// The lane in the columns `issuer` and `class`.
pub(super) fn lane(row: &PgRow) -> Result<Lane, Fault> {
    Ok(Lane {
        issuer: parsed::<IssuerId>(row, "issuer")?,
        class: parsed::<Class>(row, "class")?,
    })
}

/// A serial.
pub(super) fn serial(row: &PgRow, column: &'static str) -> Result<Serial, Fault> {
    Serial::from_bytes(get(row, column)?).ok_or_else(|| damaged(column, "not a serial of ours"))
}

/// A digest.
pub(super) fn digest(row: &PgRow, column: &'static str) -> Result<Digest, Fault> {
    let bytes = get::<&[u8]>(row, column)?.try_into();
    bytes.map(Digest).map_err(|_| damaged(column, "a digest has 32 bytes"))
}

/// A time.
pub(super) fn time(row: &PgRow, column: &'static str) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_millis(get(row, column)?))
}

/// A count that may not be below zero. (Sums of writers' rows are `bigint`.)
pub(super) fn count(row: &PgRow, column: &'static str) -> Result<u64, Fault> {
    Ok(u64::try_from(get::<i64>(row, column)?).unwrap_or(0))
}

/// A small number.
pub(super) fn small<T: TryFrom<i64>>(row: &PgRow, column: &'static str) -> Result<T, Fault> {
    let number: i64 = get(row, column)?;
    T::try_from(number).map_err(|_| damaged(column, format!("{number} is out of range")))
}

/// A number as PostgreSQL can have it.
pub(super) fn big(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Serials as an array of bytes.
pub(super) fn serials<'s>(jobs: impl IntoIterator<Item = &'s Serial>) -> Vec<Vec<u8>> {
    jobs.into_iter().map(|job| job.as_bytes().to_vec()).collect()
}

/// Text without the one character that PostgreSQL does not take.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A purpose as text.
pub(super) const fn purpose_text(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::EndEntity => "end-entity",
        Purpose::OcspSigner => "ocsp-signer",
        Purpose::Tsa => "tsa",
    }
}

/// A purpose.
pub(super) fn purpose(row: &PgRow, column: &'static str) -> Result<Purpose, Fault> {
    match get(row, column)? {
        "end-entity" => Ok(Purpose::EndEntity),
        "ocsp-signer" => Ok(Purpose::OcspSigner),
        "tsa" => Ok(Purpose::Tsa),
        other => Err(damaged(column, format!("{other:?} is not a purpose"))),
    }
}

/// An issuer's state as text.
pub(super) const fn issuer_state_text(state: IssuerState) -> &'static str {
    match state {
        IssuerState::Enabled => "enabled",
        IssuerState::Disabled => "disabled",
        IssuerState::Destroyed => "destroyed",
    }
}
