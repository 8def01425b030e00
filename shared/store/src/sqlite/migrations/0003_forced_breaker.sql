-- Operators' orders to the breakers of an issuer, which are one for all its lanes. Without a row they do as they see fit.
CREATE TABLE forced_breaker (
    issuer TEXT NOT NULL PRIMARY KEY,
    force  TEXT NOT NULL CHECK (force = 'open' OR force = 'closed' OR force = 'observe')
) STRICT, WITHOUT ROWID;
