-- Several networks: a number names each, a project may have its own, and what must be its alone is unique.
-- `deleting` is set before the host is tidied and the row goes; such a network gives out nothing any more.
ALTER TABLE fixed_ips RENAME TO old_fixed_ips;
ALTER TABLE networks RENAME TO old_networks;
DROP INDEX fixed_ips_by_instance;

CREATE TABLE networks (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    project_id TEXT,
    name       TEXT NOT NULL,
    bridge     TEXT NOT NULL UNIQUE,
    segment    INTEGER UNIQUE,
    body       TEXT NOT NULL,
    deleting   INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX networks_by_name ON networks (name, coalesce(project_id, ''));

CREATE TABLE fixed_ips (
    network     INTEGER NOT NULL REFERENCES networks (id),
    address     INTEGER NOT NULL,
    instance_id TEXT NOT NULL,
    nic         INTEGER NOT NULL,
    mac         TEXT NOT NULL UNIQUE,
    hostname    TEXT NOT NULL,
    leased_ms   REAL NOT NULL,
    PRIMARY KEY (network, address)
) STRICT, WITHOUT ROWID;
CREATE INDEX fixed_ips_by_instance ON fixed_ips (instance_id, nic);
CREATE INDEX fixed_ips_by_address ON fixed_ips (address);

INSERT INTO networks (name, bridge, body) SELECT name, json_extract(body, '$.bridge'), body FROM old_networks;
INSERT INTO fixed_ips
    SELECT networks.id, address, instance_id, 0, mac, hostname, leased_ms
    FROM old_fixed_ips JOIN networks ON networks.name = old_fixed_ips.network;
DROP TABLE old_fixed_ips;
DROP TABLE old_networks;
