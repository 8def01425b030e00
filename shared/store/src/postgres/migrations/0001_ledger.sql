-- The ledger on PostgreSQL. `request`, `intent`, `result` and `job_event` only grow, partitioned by the day in which their job was
-- accepted (the serial begins with the time); `open` holds what is open and nothing else. Names are compared byte by byte (C), whatever
-- the database's collation. Times are milliseconds since the UNIX epoch, by this server's clock.

CREATE FUNCTION ledger_now() RETURNS bigint LANGUAGE sql VOLATILE AS
    $$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $$;

-- On the way of a request a table has one CHECK, of what could never be made good again or is too long: the server builds each one anew
-- for every statement, which costs as much as writing a row. Words, numbers and digests are the writer's types', and whoever reads them
-- refuses what they cannot be.

-- The facts of a request, narrow.
CREATE TABLE request (
    job             bytea                NOT NULL PRIMARY KEY,
    issuer          text    COLLATE "C"  NOT NULL,
    class           text    COLLATE "C"  NOT NULL,
    account         text    COLLATE "C"  NOT NULL,
    profile         text    COLLATE "C"  NOT NULL,
    profile_version bigint               NOT NULL,
    purpose         text    COLLATE "C"  NOT NULL,
    accepted_at     bigint               NOT NULL,
    sign_by         bigint               NOT NULL,
    not_before      bigint               NOT NULL,
    not_after       bigint               NOT NULL,
    intent          bytea                NOT NULL,
    CHECK (not_after >= not_before)
) PARTITION BY RANGE (job);

-- What the front end vouched for, its proof, and the to-be-signed bytes: wide, written once, read once or twice. Not compressed.
CREATE TABLE intent (
    job       bytea NOT NULL PRIMARY KEY,
    statement bytea NOT NULL,
    proof     bytea NOT NULL,
    tbs       bytea NOT NULL,
    CHECK (length(statement) BETWEEN 1 AND 262144 AND length(proof) BETWEEN 1 AND 65536 AND length(tbs) BETWEEN 1 AND 131072)
) PARTITION BY RANGE (job);
ALTER TABLE intent ALTER COLUMN statement SET STORAGE EXTERNAL;
ALTER TABLE intent ALTER COLUMN proof SET STORAGE EXTERNAL;
ALTER TABLE intent ALTER COLUMN tbs SET STORAGE EXTERNAL;

-- How a job ended. The certificate is intent, algorithm and signature.
CREATE TABLE result (
    job        bytea               NOT NULL PRIMARY KEY,
    state      text    COLLATE "C" NOT NULL,
    at         bigint              NOT NULL,
    turn       integer             NOT NULL,
    strikes    smallint            NOT NULL,
    account    text    COLLATE "C" NOT NULL,
    not_before bigint              NOT NULL,
    not_after  bigint              NOT NULL,
    signature  bytea,
    node       text    COLLATE "C",
    problem    text,
    detail     text,
    CHECK (CASE state WHEN 'issued' THEN coalesce(length(signature), 0) BETWEEN 1 AND 65536 ELSE signature IS NULL END)
) PARTITION BY RANGE (job);
ALTER TABLE result ALTER COLUMN signature SET STORAGE EXTERNAL;
CREATE INDEX result_issued ON result (account, at, not_before) WHERE state = 'issued';
CREATE INDEX result_expiring ON result (account, not_after) WHERE state = 'issued';

-- What happened to jobs, for people.
CREATE SEQUENCE job_event_id;
CREATE TABLE job_event (
    job     bytea  NOT NULL,
    id      bigint NOT NULL DEFAULT nextval('job_event_id'),
    kind    text   NOT NULL,
    detail  text   NOT NULL,
    said_by text   NOT NULL,
    at      bigint NOT NULL,
    PRIMARY KEY (job, at, id)
) PARTITION BY RANGE (job);

-- Where a day's partition is missing, nothing is lost.
CREATE TABLE request_default PARTITION OF request DEFAULT;
CREATE TABLE intent_default PARTITION OF intent DEFAULT;
CREATE TABLE result_default PARTITION OF result DEFAULT;
CREATE TABLE job_event_default PARTITION OF job_event DEFAULT;

-- Open jobs, with what their end needs. `repeat` is empty once a job is cancelled: it is not joined any more.
CREATE TABLE open (
    job         bytea                NOT NULL PRIMARY KEY,
    issuer      text     COLLATE "C" NOT NULL,
    class       text     COLLATE "C" NOT NULL,
    account     text     COLLATE "C" NOT NULL,
    purpose     text     COLLATE "C" NOT NULL,
    state       text     COLLATE "C" NOT NULL,
    owner       text     COLLATE "C",
    turn        integer              NOT NULL DEFAULT 0,
    strikes     smallint             NOT NULL DEFAULT 0,
    cancelled   boolean              NOT NULL DEFAULT FALSE,
    accepted_at bigint               NOT NULL,
    begun_at    bigint,
    sign_by     bigint               NOT NULL,
    not_before  bigint               NOT NULL,
    not_after   bigint               NOT NULL,
    join_within bigint               NOT NULL,
    waiters     text     COLLATE "C" NOT NULL DEFAULT '',
    intent      bytea                NOT NULL,
    repeat      bytea,
    unique_key  bytea,
    CHECK (num_nonnulls(owner, begun_at) = CASE state WHEN 'signing' THEN 2 ELSE 0 END)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_insert_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX open_queued ON open (issuer, class, account, job) WHERE state = 'queued';
CREATE INDEX open_signing ON open (issuer, class, begun_at) WHERE state = 'signing';
CREATE INDEX open_sign_by ON open (sign_by);
CREATE UNIQUE INDEX open_repeat ON open (repeat, account, issuer, class) WHERE repeat IS NOT NULL;

-- Statements of requests that joined an open job.
CREATE TABLE joined (
    job       bytea  NOT NULL CHECK (length(job) = 16),
    joiner    bytea  NOT NULL CHECK (length(joiner) = 16),
    sign_by   bigint NOT NULL,
    statement bytea  NOT NULL CHECK (length(statement) BETWEEN 1 AND 262144),
    proof     bytea  NOT NULL CHECK (length(proof) BETWEEN 1 AND 65536),
    PRIMARY KEY (job, joiner)
);

-- Which issued job answers a repeated request, for profiles that say so.
CREATE TABLE repeat (
    repeat  bytea            NOT NULL CHECK (length(repeat) = 32),
    account text COLLATE "C" NOT NULL,
    issuer  text COLLATE "C" NOT NULL,
    class   text COLLATE "C" NOT NULL,
    job     bytea            NOT NULL CHECK (length(job) = 16),
    until   bigint           NOT NULL,
    PRIMARY KEY (repeat, account, issuer, class)
);
CREATE INDEX repeat_until ON repeat (until);

-- Which job answers an idempotency key.
CREATE TABLE idempotency (
    key     bytea  NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    request bytea  NOT NULL CHECK (length(request) = 32),
    job     bytea  NOT NULL CHECK (length(job) = 16),
    until   bigint NOT NULL
);
CREATE INDEX idempotency_until ON idempotency (until);

-- Public keys that may have one certificate only.
CREATE TABLE key_use (
    public_key bytea NOT NULL PRIMARY KEY CHECK (length(public_key) = 32),
    job        bytea NOT NULL CHECK (length(job) = 16)
);

-- Revocations. `issued` is false for a cancelled job and for a serial that is revoked because a signature may exist.
CREATE TABLE revocation (
    job             bytea            NOT NULL PRIMARY KEY CHECK (length(job) = 16),
    account         text COLLATE "C" NOT NULL,
    reason          text             NOT NULL,
    decided_at      bigint           NOT NULL,
    revocation_date bigint           NOT NULL,
    published_at    bigint,
    decided_by      text             NOT NULL,
    issued          boolean          NOT NULL
);
CREATE INDEX revocation_account ON revocation (account, revocation_date) WHERE issued;

-- Counts, one row for each writer: a connection, which holds its number by an advisory lock, so that no two share a row. Readers add
-- them up; a single row may be below zero. A number whose connection is gone is taken by the next one, with its rows.
CREATE TABLE lane_tally (
    issuer  text COLLATE "C" NOT NULL,
    class   text COLLATE "C" NOT NULL,
    writer  integer          NOT NULL,
    queued  bigint           NOT NULL DEFAULT 0,
    signing bigint           NOT NULL DEFAULT 0,
    parked  bigint           NOT NULL DEFAULT 0,
    PRIMARY KEY (issuer, class, writer)
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- `used` is certificates and open jobs, `reserved` what the writer has leased of the account's quota and not used yet.
CREATE TABLE account_tally (
    account  text COLLATE "C" NOT NULL,
    issuer   text COLLATE "C" NOT NULL,
    class    text COLLATE "C" NOT NULL,
    writer   integer          NOT NULL,
    issued   bigint           NOT NULL DEFAULT 0,
    revoked  bigint           NOT NULL DEFAULT 0,
    used     bigint           NOT NULL DEFAULT 0,
    reserved bigint           NOT NULL DEFAULT 0 CONSTRAINT account_tally_reserved CHECK (reserved >= 0),
    PRIMARY KEY (account, issuer, class, writer)
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- One row per incarnation: its lease and its announcement (JSON).
CREATE TABLE lease (
    incarnation  text COLLATE "C" NOT NULL PRIMARY KEY,
    lease_until  bigint           NOT NULL,
    seen         bigint           NOT NULL,
    announcement text             NOT NULL
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Operators' switches. A lane without a row has none set.
CREATE TABLE lane (
    issuer   text COLLATE "C" NOT NULL,
    class    text COLLATE "C" NOT NULL CHECK (class IN ('interactive', 'renewal', 'bulk')),
    paused   boolean          NOT NULL,
    draining boolean          NOT NULL,
    diverted boolean          NOT NULL,
    PRIMARY KEY (issuer, class)
);

-- Issuers, as the registry's last revision has them: what accept, begin and finish join.
CREATE TABLE issuer (
    id        text COLLATE "C" NOT NULL PRIMARY KEY,
    state     text COLLATE "C" NOT NULL CHECK (state IN ('enabled', 'disabled', 'destroyed')),
    issue     boolean          NOT NULL,
    crl       boolean          NOT NULL,
    ocsp      boolean          NOT NULL,
    not_after bigint           NOT NULL
);

-- Always empty. Whatever joins `issuer` or `lane` and writes takes this table's lock (ROW EXCLUSIVE, among themselves no obstacle)
-- before its snapshot; whoever changes those tables takes it in SHARE mode. So a change waits for what began before it, and what
-- begins after it sees it: from the commit of a disable on, nothing of that issuer is accepted, begun or finished.
CREATE TABLE registry_gate (nothing boolean);

-- The registry's revisions.
CREATE TABLE revision (
    number    bigint           NOT NULL PRIMARY KEY,
    previous  bytea            NOT NULL CHECK (length(previous) = 32),
    body      bytea            NOT NULL,
    hash      bytea            NOT NULL CHECK (length(hash) = 32),
    node      text COLLATE "C" NOT NULL,
    signature bytea            NOT NULL,
    at        bigint           NOT NULL
);

-- Audit chains, one per writer.
CREATE TABLE audit (
    writer    text COLLATE "C" NOT NULL,
    sequence  bigint           NOT NULL CHECK (sequence > 0),
    at        bigint           NOT NULL,
    previous  bytea            NOT NULL CHECK (length(previous) = 32),
    events    bytea            NOT NULL,
    hash      bytea            NOT NULL CHECK (length(hash) = 32),
    signature bytea            NOT NULL,
    PRIMARY KEY (writer, sequence)
);
CREATE INDEX audit_at ON audit (at);
