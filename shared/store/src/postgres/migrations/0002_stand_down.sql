-- Whether a signer has a permit to stand down. It ends with the lease.
ALTER TABLE lease ADD COLUMN stands_down boolean NOT NULL DEFAULT FALSE;
