CREATE TABLE networks (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

-- A row exists only while the address is taken, so a large network costs nothing.
CREATE TABLE fixed_ips (
    network     TEXT NOT NULL REFERENCES networks (name),
    address     INTEGER NOT NULL,
    instance_id TEXT NOT NULL,
    mac         TEXT NOT NULL UNIQUE,
    hostname    TEXT NOT NULL,
    leased_ms   REAL NOT NULL,
    PRIMARY KEY (network, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX fixed_ips_by_instance ON fixed_ips (instance_id);
