//! The files of a ledger: the directory and its lock, connections and their settings, migrations.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};

/// The database, in the data directory.
const DATABASE: &str = "ledger.sqlite";
/// The file that the process holds locked that writes the ledger.
const LOCK: &str = "ledger.lock";

/// Migrations in order: number N leads from schema N - 1 to N. Never changed once released; a change is a new one.
const MIGRATIONS: [(u32, &str); 3] = [
    (1, include_str!("migrations/0001_ledger.sql")),
    (2, include_str!("migrations/0002_stand_down.sql")),
    (3, include_str!("migrations/0003_forced_breaker.sql")),
];
/// The newest schema.
const NEWEST: u32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the ledger in {0} is in use by another process: stop that one first, or use another data directory")]
    InUse(PathBuf),
    /// A newer program has been here.
    #[error(
        "the ledger in {path} has schema {found}, and this program knows schemas up to {known}: use the newer program that wrote it"
    )]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// The file is not a ledger.
    #[error("{0} is not a ledger: a database with other tables is there; use another data directory")]
    NotALedger(PathBuf),
    /// A setting is out of its range.
    #[error("store option {option}: {problem}")]
    Option {
        /// Which.
        option: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Directory or files cannot be made or locked.
    #[error("the ledger in {path} cannot be opened: {source}; check that the directory exists and is writable")]
    Files {
        /// The data directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// SQLite says no.
    #[error("the ledger in {path} cannot be opened: {problem}")]
    Database {
        /// The data directory.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

/// A data directory that this process alone writes, until it is dropped.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    _lock: File,
}

impl Files {
    /// Makes the directory if need be and locks it.
    pub(super) fn lock(directory: &Path) -> Result<Self, OpenError> {
        let files = |source| OpenError::Files {
            path: directory.into(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(files)?;
        let private = |name| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.open(directory.join(name)).map_err(files)
        };
        let lock = private(LOCK)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse(directory.into()),
            TryLockError::Error(source) => files(source),
        })?;
        private(DATABASE)?;
        Ok(Self {
            directory: directory.into(),
            _lock: lock,
        })
    }

    /// The connection that writes, with the newest schema.
    pub(super) fn writer(&self, checkpoint_pages: u32) -> Result<Connection, OpenError> {
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(self.directory.join(DATABASE))?;
            configure(&connection)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "foreign_keys", true)?;
            connection.pragma_update(None, "wal_autocheckpoint", checkpoint_pages)?;
            connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
            Ok(connection)
        };
        let mut connection = open().map_err(|error| self.database(&error))?;
        self.migrate(&mut connection)?;
        Ok(connection)
    }

    /// A connection that reads.
    pub(super) fn reader(&self) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(self.directory.join(DATABASE), flags)?;
            configure(&connection)?;
            connection.pragma_update(None, "query_only", true)?;
            Ok(connection)
        };
        open().map_err(|error| self.database(&error))
    }

    fn migrate(&self, connection: &mut Connection) -> Result<(), OpenError> {
        let version: u32 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| self.database(&error))?;
        if version > NEWEST {
            return Err(OpenError::Newer {
                path: self.directory.clone(),
                found: version,
                known: NEWEST,
            });
        }
        let tables: u32 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|error| self.database(&error))?;
        if version == 0 && tables > 0 {
            return Err(OpenError::NotALedger(self.directory.join(DATABASE)));
        }
        let mut run = |number: u32, migration: &str| -> rusqlite::Result<()> {
            let transaction = connection.transaction()?;
            transaction.execute_batch(migration)?;
            transaction.pragma_update(None, "user_version", number)?;
            transaction.commit()
        };
        for (number, migration) in MIGRATIONS.into_iter().filter(|(number, _)| *number > version) {
            run(number, migration).map_err(|error| self.database(&error))?;
            tracing::info!(schema = number, "ledger migrated");
        }
        Ok(())
    }

    fn database(&self, error: &rusqlite::Error) -> OpenError {
        OpenError::Database {
            path: self.directory.clone(),
            problem: error.to_string(),
        }
    }
}

/// What every connection has.
fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.set_prepared_statement_cache_capacity(256);
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", false)
}
