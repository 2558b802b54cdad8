-- What EC2 calls a key's fingerprint cannot be told from a public key that was made here. Empty: computed from it.
ALTER TABLE key_pairs ADD COLUMN ec2_fingerprint TEXT NOT NULL DEFAULT '';
ALTER TABLE key_pairs ADD COLUMN created_ms REAL NOT NULL DEFAULT 0;
