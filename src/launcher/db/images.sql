-- What the catalogue knows of an image is its body; by these it is searched. Rows stay for ever, so no id comes twice.
ALTER TABLE images ADD COLUMN state TEXT
    GENERATED ALWAYS AS (coalesce(json_extract(body, '$.state'), 'active')) VIRTUAL;
ALTER TABLE images ADD COLUMN project_id TEXT
    GENERATED ALWAYS AS (coalesce(json_extract(body, '$.project_id'), 'admin')) VIRTUAL;
ALTER TABLE images ADD COLUMN public INTEGER
    GENERATED ALWAYS AS (coalesce(json_extract(body, '$.public'), 1)) VIRTUAL;
ALTER TABLE images ADD COLUMN source TEXT
    GENERATED ALWAYS AS (coalesce(json_extract(body, '$.source'), 'library')) VIRTUAL;
ALTER TABLE images ADD COLUMN sha256 TEXT GENERATED ALWAYS AS (json_extract(body, '$.sha256')) VIRTUAL;
CREATE INDEX images_by_state ON images (state);
