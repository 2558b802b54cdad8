CREATE TABLE credentials (
    token_sha256 TEXT PRIMARY KEY,
    user_id      TEXT NOT NULL,
    project_id   TEXT NOT NULL,
    is_admin     INTEGER NOT NULL,
    created_ms   REAL NOT NULL
) STRICT;

CREATE TABLE images (
    id   TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    body TEXT NOT NULL,
    registered_ms REAL NOT NULL
) STRICT;
CREATE INDEX images_by_name ON images (name, registered_ms);

CREATE TABLE key_pairs (
    project_id  TEXT NOT NULL,
    name        TEXT NOT NULL,
    type        TEXT NOT NULL,
    public_key  TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    PRIMARY KEY (project_id, name)
) STRICT;

CREATE TABLE security_groups (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id  TEXT NOT NULL,
    name        TEXT NOT NULL,
    description TEXT NOT NULL,
    version     INTEGER NOT NULL,
    UNIQUE (project_id, name)
) STRICT;
CREATE INDEX security_groups_by_version ON security_groups (version);

CREATE TABLE security_group_rules (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id  INTEGER NOT NULL REFERENCES security_groups (id) ON DELETE CASCADE,
    direction TEXT NOT NULL,
    protocol  TEXT NOT NULL,
    from_port INTEGER,
    to_port   INTEGER,
    cidr      TEXT,
    source_id INTEGER REFERENCES security_groups (id)
) STRICT;
CREATE INDEX rules_by_group ON security_group_rules (group_id);
CREATE INDEX rules_by_source ON security_group_rules (source_id) WHERE source_id IS NOT NULL;

-- Counts the changes of what any host filters by. A group's `version` is the count at the last change of its rules or
-- of the members that these name, an instance's `regrouped` at the last change of its own groups since its launch.
CREATE TABLE policy (version INTEGER NOT NULL) STRICT;
INSERT INTO policy VALUES (0);

-- One row per instance, for ever: its number names artefacts on the host and is never used twice.
-- `spec` is the LaunchOrder of its first generation; what moves stands in columns.
CREATE TABLE instances (
    number            INTEGER PRIMARY KEY AUTOINCREMENT,
    id                TEXT NOT NULL UNIQUE,
    generation        INTEGER NOT NULL,
    project_id        TEXT NOT NULL,
    user_id           TEXT NOT NULL,
    name              TEXT NOT NULL,
    hostname          TEXT NOT NULL,
    vm_state          TEXT NOT NULL,
    task_state        TEXT,
    state_since_ms    REAL NOT NULL,
    host              TEXT,
    mac               TEXT NOT NULL,
    address           TEXT,
    regrouped         INTEGER NOT NULL DEFAULT 0,
    injection         TEXT,
    vcpus             INTEGER NOT NULL,
    memory_mb         INTEGER NOT NULL,
    flavor            TEXT NOT NULL,
    image_id          TEXT NOT NULL,
    image_name        TEXT NOT NULL,
    key_name          TEXT,
    availability_zone TEXT,
    metadata          TEXT NOT NULL,
    user_data         TEXT,
    reservation_id    TEXT NOT NULL,
    launch_index      INTEGER NOT NULL,
    spec              TEXT NOT NULL,
    request_id        TEXT NOT NULL,
    trace_id          TEXT NOT NULL,
    delete_trace_id   TEXT,
    created_ms        REAL NOT NULL,
    launched_ms       REAL,
    deleted_ms        REAL,
    fault             TEXT,
    attempts          INTEGER NOT NULL DEFAULT 0,
    nudges            INTEGER NOT NULL DEFAULT 0,
    next_check_ms     REAL,
    deadline_ms       REAL NOT NULL
) STRICT;
CREATE INDEX instances_by_project ON instances (project_id, vm_state);
CREATE INDEX instances_due ON instances (next_check_ms) WHERE next_check_ms IS NOT NULL;
CREATE INDEX instances_by_host ON instances (host, vm_state);
CREATE UNIQUE INDEX one_live_instance_per_mac ON instances (mac) WHERE vm_state != 'deleted';

CREATE INDEX instances_regrouped ON instances (regrouped) WHERE regrouped > 0;

-- Until the instance is deleted; `position` is the order in which the groups were named. `addresses`, a list in JSON, is
-- where the others of the group know it, and empty while they do not: all that is read of a group of a thousand.
CREATE TABLE group_members (
    group_id  INTEGER NOT NULL REFERENCES security_groups (id),
    number    INTEGER NOT NULL REFERENCES instances (number),
    position  INTEGER NOT NULL,
    addresses TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (group_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_members_by_instance ON group_members (number, position);

-- Whose host must keep up with the policy of their groups.
CREATE VIEW filtered_instances AS
    SELECT number, id, host, regrouped FROM instances
    WHERE host IS NOT NULL AND vm_state NOT IN ('deleted', 'error')
    AND (task_state IS NULL OR task_state NOT IN ('cleaning', 'deleting'));

CREATE TABLE idempotency_keys (
    project_id     TEXT NOT NULL,
    key            TEXT NOT NULL,
    request_sha256 TEXT NOT NULL,
    instance_ids   TEXT NOT NULL,
    created_ms     REAL NOT NULL,
    PRIMARY KEY (project_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id  TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    body        TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_instance ON events (instance_id, seq);

CREATE TABLE spans (
    trace_id    TEXT NOT NULL,
    span_id     TEXT NOT NULL,
    instance_id TEXT,
    start_ms    REAL NOT NULL,
    body        TEXT NOT NULL,
    PRIMARY KEY (trace_id, span_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX spans_by_age ON spans (start_ms);
