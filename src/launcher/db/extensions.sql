-- A volume's last extension, under way, done or failed: its beginning, the size before and the one that was asked for.
ALTER TABLE volumes ADD COLUMN extension TEXT;
