CREATE TABLE projects (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    enabled     INTEGER NOT NULL,
    created_ms  REAL NOT NULL
) STRICT;

-- `password` is a hash with its parameters (services/controller/passwords.py).
CREATE TABLE users (
    id                 TEXT PRIMARY KEY,
    name               TEXT NOT NULL UNIQUE,
    password           TEXT,
    email              TEXT,
    description        TEXT NOT NULL,
    default_project_id TEXT REFERENCES projects (id) ON DELETE SET NULL,
    enabled            INTEGER NOT NULL,
    created_ms         REAL NOT NULL
) STRICT;

CREATE TABLE grants (
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    role       TEXT NOT NULL,
    PRIMARY KEY (user_id, project_id, role)
) STRICT, WITHOUT ROWID;

-- `secret` is an access key's own, because signatures are made with it; of all others it is the SHA-256.
-- The administrator's token, all that was here, comes back from admin.json at the next start.
DROP TABLE credentials;
CREATE TABLE credentials (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL,
    name       TEXT NOT NULL,
    user_id    TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    project_id TEXT REFERENCES projects (id) ON DELETE CASCADE,
    role       TEXT NOT NULL,
    secret     TEXT NOT NULL,
    methods    TEXT NOT NULL,
    parent_id  TEXT REFERENCES credentials (id) ON DELETE CASCADE,
    created_ms REAL NOT NULL,
    expires_ms REAL
) STRICT;
CREATE UNIQUE INDEX tokens ON credentials (secret) WHERE kind = 'token';
CREATE INDEX credentials_by_user ON credentials (user_id);
CREATE INDEX credentials_by_parent ON credentials (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX credentials_by_end ON credentials (expires_ms) WHERE expires_ms IS NOT NULL;

CREATE TABLE quotas (
    project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    name       TEXT NOT NULL,
    most       INTEGER NOT NULL,
    PRIMARY KEY (project_id, name)
) STRICT, WITHOUT ROWID;
