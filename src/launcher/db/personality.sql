-- Files and a password's hash for the guest, as JSON; NULL is none.
ALTER TABLE instances ADD COLUMN personality TEXT;
