-- Volumes and snapshots, a row each, for ever: its number names what it has on its host and is never used twice.
-- `snapshot_of` is a snapshot's volume; `source` the snapshot that a volume was made of; `new_size_gb` what an extension
-- under way is to end with. While `instance_id` is set the volume is the instance's, under `device`.
CREATE TABLE volumes (
    number                INTEGER PRIMARY KEY AUTOINCREMENT,
    id                    TEXT NOT NULL UNIQUE,
    generation            INTEGER NOT NULL,
    project_id            TEXT NOT NULL,
    user_id               TEXT NOT NULL,
    name                  TEXT NOT NULL,
    description           TEXT NOT NULL,
    metadata              TEXT NOT NULL,
    status                TEXT NOT NULL,
    state_since_ms        REAL NOT NULL,
    size_gb               INTEGER NOT NULL,
    new_size_gb           INTEGER,
    host                  TEXT,
    availability_zone     TEXT,
    snapshot_of           TEXT REFERENCES volumes (id),
    source                TEXT REFERENCES volumes (id),
    image                 TEXT,
    instance_id           TEXT REFERENCES instances (id),
    device                TEXT,
    attached_ms           REAL,
    delete_on_termination INTEGER NOT NULL DEFAULT 0,
    forced                INTEGER NOT NULL DEFAULT 0,
    fault                 TEXT,
    request_id            TEXT NOT NULL,
    trace_id              TEXT NOT NULL,
    created_ms            REAL NOT NULL,
    deleted_ms            REAL,
    attempts              INTEGER NOT NULL DEFAULT 0,
    nudges                INTEGER NOT NULL DEFAULT 0,
    next_check_ms         REAL,
    CHECK ((instance_id IS NULL) = (device IS NULL))
) STRICT;
CREATE INDEX volumes_by_project ON volumes (project_id, status);
CREATE INDEX volumes_due ON volumes (next_check_ms) WHERE next_check_ms IS NOT NULL;
CREATE UNIQUE INDEX one_volume_per_device ON volumes (instance_id, device) WHERE instance_id IS NOT NULL;
CREATE INDEX volumes_by_source ON volumes (source) WHERE source IS NOT NULL;
CREATE INDEX volumes_by_snapshot_of ON volumes (snapshot_of) WHERE snapshot_of IS NOT NULL;
