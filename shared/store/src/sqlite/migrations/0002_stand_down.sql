-- Whether a signer has a permit to stand down. It ends with the lease.
ALTER TABLE lease ADD COLUMN stands_down INTEGER NOT NULL DEFAULT 0 CHECK (stands_down IN (0, 1));
