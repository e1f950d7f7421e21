-- Heads that collections were taught: `matrix` is float32, little endian, d x d, for vectors of `space`; `id` is a digest
-- of collection, space and matrix. `figures` is JSON: what was measured on held-out pairs. A collection uses `head`, if
-- it has one; it counts only while the server has the model of its space.
CREATE TABLE heads (
    id TEXT PRIMARY KEY,
    collection TEXT NOT NULL,
    space TEXT NOT NULL,
    matrix BLOB NOT NULL,
    maps_pictures INTEGER NOT NULL,
    figures TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE INDEX heads_collection ON heads (collection);
ALTER TABLE collections ADD COLUMN head TEXT;
