-- What a rescued instance boots from instead of its own root: a `Boot` as JSON, kept from the last rescue on.
ALTER TABLE instances ADD COLUMN rescue TEXT;
