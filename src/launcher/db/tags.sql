-- What a project notes of the things it sees. The tags of an instance are its metadata.
CREATE TABLE tags (
    project_id TEXT NOT NULL,
    kind       TEXT NOT NULL,
    id         TEXT NOT NULL,
    key        TEXT NOT NULL,
    value      TEXT NOT NULL,
    PRIMARY KEY (project_id, kind, id, key)
) STRICT, WITHOUT ROWID;
