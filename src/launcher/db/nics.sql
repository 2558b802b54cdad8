-- Several NICs an instance. A row for each while its instance lives, so no two of them have one MAC.
CREATE TABLE nics (
    mac      TEXT PRIMARY KEY,
    number   INTEGER NOT NULL REFERENCES instances (number),
    position INTEGER NOT NULL,
    network  TEXT,
    address  TEXT,
    address6 TEXT,
    UNIQUE (number, position)
) STRICT, WITHOUT ROWID;
INSERT INTO nics SELECT mac, number, 0, NULL, address, NULL FROM instances WHERE vm_state != 'deleted';
UPDATE instances SET spec = json_set(json_remove(spec, '$.mac'), '$.nics', json_array(json_object('mac', mac)));
DROP INDEX one_live_instance_per_mac;
ALTER TABLE instances DROP COLUMN mac;
ALTER TABLE instances DROP COLUMN address;
