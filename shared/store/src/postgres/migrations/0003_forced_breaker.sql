-- Operators' orders to the breakers of an issuer, which are one for all its lanes. Without a row they do as they see fit.
CREATE TABLE forced_breaker (
    issuer text COLLATE "C" NOT NULL PRIMARY KEY,
    force  text COLLATE "C" NOT NULL CHECK (force IN ('open', 'closed', 'observe'))
);
