-- `locked` says by whom: its owner, or an administrator, whose lock the owner cannot open.
-- `previous_flavor` is the flavor before the last resize.
ALTER TABLE instances ADD COLUMN protected INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instances ADD COLUMN locked TEXT;
ALTER TABLE instances ADD COLUMN previous_flavor TEXT;
