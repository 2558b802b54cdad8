-- Floating IPs: a row while a project holds the address. The fixed IP that it leads to may go at any time.
CREATE TABLE floating_ips (
    address      INTEGER PRIMARY KEY,
    pool         TEXT NOT NULL,
    project_id   TEXT NOT NULL,
    network      INTEGER,
    fixed        INTEGER,
    allocated_ms REAL NOT NULL,
    UNIQUE (network, fixed),
    FOREIGN KEY (network, fixed) REFERENCES fixed_ips (network, address) ON DELETE SET NULL
) STRICT;
CREATE INDEX floating_ips_by_project ON floating_ips (project_id);
