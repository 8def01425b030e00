-- The ledger. `request`, `statement`, `intent`, `result` and `job_event` only grow; `open` holds what is open and nothing else.
-- Jobs are named by their serial, which grows with time, so that inserts stay at the right edge of every tree.
-- Checks are written with OR: SQLite builds a temporary table for an IN of three and more each time a row is written.

-- The facts of a request, narrow, by serial. `id` leads to the wide rows, which are appended in the order of acceptance.
CREATE TABLE request (
    job             BLOB    NOT NULL PRIMARY KEY CHECK (length(job) = 16),
    id              INTEGER NOT NULL,
    issuer          TEXT    NOT NULL,
    class           TEXT    NOT NULL CHECK (class = 'interactive' OR class = 'renewal' OR class = 'bulk'),
    account         TEXT    NOT NULL,
    profile         TEXT    NOT NULL,
    profile_version INTEGER NOT NULL CHECK (profile_version >= 0),
    purpose         TEXT    NOT NULL CHECK (purpose = 'end-entity' OR purpose = 'ocsp-signer' OR purpose = 'tsa'),
    accepted_at     INTEGER NOT NULL,
    sign_by         INTEGER NOT NULL,
    not_before      INTEGER NOT NULL,
    not_after       INTEGER NOT NULL,
    intent          BLOB    NOT NULL CHECK (length(intent) = 32),
    CHECK (not_after >= not_before)
) STRICT, WITHOUT ROWID;

-- What the front end vouched for, and its proof.
CREATE TABLE statement (
    id        INTEGER PRIMARY KEY,
    statement BLOB    NOT NULL CHECK (length(statement) BETWEEN 1 AND 262144),
    proof     BLOB    NOT NULL CHECK (length(proof) BETWEEN 1 AND 65536)
) STRICT;

-- The to-be-signed bytes.
CREATE TABLE intent (
    id  INTEGER PRIMARY KEY,
    tbs BLOB    NOT NULL CHECK (length(tbs) BETWEEN 1 AND 131072)
) STRICT;

-- How a job ended. The certificate is intent, algorithm and signature.
CREATE TABLE result (
    job        BLOB    NOT NULL PRIMARY KEY REFERENCES request (job),
    state      TEXT    NOT NULL CHECK (state = 'issued' OR state = 'refused' OR state = 'expired' OR state = 'discarded'),
    at         INTEGER NOT NULL,
    turn       INTEGER NOT NULL CHECK (turn >= 0),
    strikes    INTEGER NOT NULL CHECK (strikes BETWEEN 0 AND 3),
    account    TEXT    NOT NULL,
    not_before INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    signature  BLOB,
    node       TEXT,
    problem    TEXT,
    detail     TEXT,
    CHECK ((state = 'issued') = (signature IS NOT NULL)),
    CHECK (signature IS NULL OR length(signature) BETWEEN 1 AND 65536)
) STRICT, WITHOUT ROWID;
CREATE INDEX result_issued ON result (account, at, not_before) WHERE state = 'issued';
CREATE INDEX result_expiring ON result (account, not_after) WHERE state = 'issued';

-- What happened to jobs, for people.
CREATE TABLE job_event (
    id      INTEGER PRIMARY KEY,
    job     BLOB    NOT NULL CHECK (length(job) = 16),
    kind    TEXT    NOT NULL,
    detail  TEXT    NOT NULL,
    said_by TEXT    NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
CREATE INDEX job_event_job ON job_event (job);

-- Open jobs. Without a foreign key: what is deleted from often would pay for it each time.
CREATE TABLE open (
    job         BLOB    NOT NULL PRIMARY KEY CHECK (length(job) = 16),
    issuer      TEXT    NOT NULL,
    class       TEXT    NOT NULL CHECK (class = 'interactive' OR class = 'renewal' OR class = 'bulk'),
    account     TEXT    NOT NULL,
    purpose     TEXT    NOT NULL CHECK (purpose = 'end-entity' OR purpose = 'ocsp-signer' OR purpose = 'tsa'),
    state       TEXT    NOT NULL CHECK (state = 'queued' OR state = 'signing' OR state = 'parked'),
    owner       TEXT,
    turn        INTEGER NOT NULL DEFAULT 0 CHECK (turn >= 0),
    strikes     INTEGER NOT NULL DEFAULT 0 CHECK (strikes BETWEEN 0 AND 3),
    accepted_at INTEGER NOT NULL,
    begun_at    INTEGER,
    sign_by     INTEGER NOT NULL,
    waiters     TEXT    NOT NULL DEFAULT '',
    repeat      BLOB    NOT NULL CHECK (length(repeat) = 32),
    join_within INTEGER NOT NULL CHECK (join_within >= 0),
    unique_key  BLOB             CHECK (length(unique_key) = 32),
    CHECK ((state = 'signing') = (owner IS NOT NULL)),
    CHECK ((state = 'signing') = (begun_at IS NOT NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX open_lane ON open (issuer, class, state, account, job);
CREATE INDEX open_sign_by ON open (sign_by);

-- Statements of requests that joined a job.
CREATE TABLE joined (
    job       BLOB    NOT NULL REFERENCES request (job),
    joiner    BLOB    NOT NULL CHECK (length(joiner) = 16),
    sign_by   INTEGER NOT NULL,
    statement BLOB    NOT NULL CHECK (length(statement) BETWEEN 1 AND 262144),
    proof     BLOB    NOT NULL CHECK (length(proof) BETWEEN 1 AND 65536),
    PRIMARY KEY (job, joiner)
) STRICT, WITHOUT ROWID;

-- Which issued job answers a repeated request, for profiles that say so. Open jobs are found by the writer's memory.
CREATE TABLE repeat (
    account TEXT    NOT NULL,
    repeat  BLOB    NOT NULL CHECK (length(repeat) = 32),
    job     BLOB    NOT NULL CHECK (length(job) = 16),
    until   INTEGER NOT NULL,
    PRIMARY KEY (account, repeat)
) STRICT, WITHOUT ROWID;
CREATE INDEX repeat_until ON repeat (until);

-- Which job answers an idempotency key.
CREATE TABLE idempotency (
    key     BLOB    NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    request BLOB    NOT NULL CHECK (length(request) = 32),
    job     BLOB    NOT NULL CHECK (length(job) = 16),
    until   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_until ON idempotency (until);

-- Public keys that may have one certificate only.
CREATE TABLE key_use (
    public_key BLOB NOT NULL PRIMARY KEY CHECK (length(public_key) = 32),
    job        BLOB NOT NULL CHECK (length(job) = 16)
) STRICT, WITHOUT ROWID;

-- Revocations. `issued` is 0 for a cancelled job and for a serial that is revoked because a signature may exist.
CREATE TABLE revocation (
    job             BLOB    NOT NULL PRIMARY KEY REFERENCES request (job),
    account         TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    decided_at      INTEGER NOT NULL,
    revocation_date INTEGER NOT NULL,
    published_at    INTEGER,
    decided_by      TEXT    NOT NULL,
    issued          INTEGER NOT NULL CHECK (issued IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE INDEX revocation_account ON revocation (account, revocation_date) WHERE issued = 1;

-- What an account has had. `used` counts certificates and open jobs: what its quota is measured against.
CREATE TABLE account_total (
    account TEXT    NOT NULL PRIMARY KEY,
    issued  INTEGER NOT NULL DEFAULT 0,
    revoked INTEGER NOT NULL DEFAULT 0,
    used    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- One row per incarnation: its lease and its announcement (JSON).
CREATE TABLE lease (
    incarnation  TEXT    NOT NULL PRIMARY KEY,
    lease_until  INTEGER NOT NULL,
    seen         INTEGER NOT NULL,
    announcement TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Operators' switches. A lane without a row has none set.
CREATE TABLE lane (
    issuer   TEXT    NOT NULL,
    class    TEXT    NOT NULL CHECK (class = 'interactive' OR class = 'renewal' OR class = 'bulk'),
    paused   INTEGER NOT NULL CHECK (paused IN (0, 1)),
    draining INTEGER NOT NULL CHECK (draining IN (0, 1)),
    diverted INTEGER NOT NULL CHECK (diverted IN (0, 1)),
    PRIMARY KEY (issuer, class)
) STRICT, WITHOUT ROWID;

-- Issuers, as the registry's last revision has them: what accept, begin and finish join.
CREATE TABLE issuer (
    id         TEXT    NOT NULL PRIMARY KEY,
    state      TEXT    NOT NULL CHECK (state = 'enabled' OR state = 'disabled' OR state = 'destroyed'),
    issue      INTEGER NOT NULL CHECK (issue IN (0, 1)),
    crl        INTEGER NOT NULL CHECK (crl IN (0, 1)),
    ocsp       INTEGER NOT NULL CHECK (ocsp IN (0, 1)),
    not_after  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The registry's revisions.
CREATE TABLE revision (
    number    INTEGER PRIMARY KEY,
    previous  BLOB    NOT NULL CHECK (length(previous) = 32),
    body      BLOB    NOT NULL,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    node      TEXT    NOT NULL,
    signature BLOB    NOT NULL,
    at        INTEGER NOT NULL
) STRICT;

-- Audit chains, one per writer.
CREATE TABLE audit (
    writer    TEXT    NOT NULL,
    sequence  INTEGER NOT NULL CHECK (sequence > 0),
    at        INTEGER NOT NULL,
    previous  BLOB    NOT NULL CHECK (length(previous) = 32),
    events    BLOB    NOT NULL,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32),
    signature BLOB    NOT NULL,
    PRIMARY KEY (writer, sequence)
) STRICT;
CREATE INDEX audit_at ON audit (at);
