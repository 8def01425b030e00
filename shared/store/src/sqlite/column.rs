//! How the domain's values stand in columns: names and states as text, serials and digests as blobs, times as milliseconds.

use std::{fmt::Display, str::FromStr};

use domain::{
    breaker::Force,
    bytes::{Blob, Digest},
    id::{AccountId, Incarnation, IssuerId, NodeId, ProfileId, Serial},
    issuer::{IssuerState, Purpose},
    job::{RevocationReason, State},
    lane::Class,
    time::Timestamp,
};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::rules::Waiters;

/// A domain value in a column: `Column(&value)` goes in, `Column<Value>` comes out.
#[derive(Debug)]
pub(super) struct Column<T>(pub(super) T);

/// What a text, blob or number that is not a value of its type becomes.
fn damaged(error: impl Display) -> FromSqlError {
    FromSqlError::Other(error.to_string().into())
}

/// Types whose text is parsed by `FromStr`, which refuses what cannot be.
macro_rules! text {
    ($($type:ty),*) => {$(
        impl ToSql for Column<&$type> {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0.as_str().as_bytes())))
            }
        }
        impl FromSql for Column<$type> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                <$type>::from_str(value.as_str()?).map(Column).map_err(damaged)
            }
        }
    )*};
}
text!(
    IssuerId,
    AccountId,
    ProfileId,
    NodeId,
    Class,
    State,
    RevocationReason,
    Force
);

/// Types without a text of their own.
macro_rules! words {
    ($type:ty: $($value:path = $word:literal),*) => {
        impl ToSql for Column<&$type> {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                let word = match self.0 { $($value => $word),* };
                Ok(ToSqlOutput::Borrowed(ValueRef::Text(word.as_bytes())))
            }
        }
        impl FromSql for Column<$type> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                match value.as_str()? {
                    $($word => Ok(Column($value)),)*
                    other => Err(damaged(format!("{other:?} is not a {}", stringify!($type)))),
                }
            }
        }
    };
}
words!(Purpose: Purpose::EndEntity = "end-entity", Purpose::OcspSigner = "ocsp-signer", Purpose::Tsa = "tsa");
words!(IssuerState: IssuerState::Enabled = "enabled", IssuerState::Disabled = "disabled", IssuerState::Destroyed = "destroyed");

impl ToSql for Column<&Incarnation> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}
impl FromSql for Column<Incarnation> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Column).map_err(damaged)
    }
}

impl ToSql for Column<&Serial> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.0.as_bytes())))
    }
}
impl FromSql for Column<Serial> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Serial::from_bytes(value.as_blob()?)
            .map(Column)
            .ok_or_else(|| damaged("not a serial of ours"))
    }
}

impl ToSql for Column<&Digest> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(&self.0.0)))
    }
}
impl FromSql for Column<Digest> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let bytes = value.as_blob()?.try_into();
        bytes
            .map(|bytes| Column(Digest(bytes)))
            .map_err(|_| damaged("a digest has 32 bytes"))
    }
}

/// Audit events: a JSON array of base64 texts.
impl ToSql for Column<&Vec<Blob>> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let json = serde_json::to_vec(self.0).expect("a list of texts always serialises");
        Ok(ToSqlOutput::from(json))
    }
}
impl FromSql for Column<Vec<Blob>> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        serde_json::from_slice(value.as_blob()?).map(Column).map_err(damaged)
    }
}

impl ToSql for Column<Timestamp> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.as_millis().into())
    }
}
impl FromSql for Column<Timestamp> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Timestamp::from_millis).map(Column)
    }
}

impl ToSql for Column<u64> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(i64::try_from(self.0).unwrap_or(i64::MAX).into())
    }
}
impl FromSql for Column<u64> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        u64::try_from(value.as_i64()?).map(Column).map_err(damaged)
    }
}

impl ToSql for Column<&Waiters> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.0.to_string().into())
    }
}
impl FromSql for Column<Waiters> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Column).map_err(damaged)
    }
}
