-- The perceptual hash of a picture (app/decode/perceptual_hash.py): empty for a picture without shapes, NULL until
-- somebody has computed it.
ALTER TABLE images ADD COLUMN perceptual_hash BLOB;
CREATE INDEX images_unhashed ON images (collection, key) WHERE status = 'ready' AND perceptual_hash IS NULL;
CREATE INDEX images_embedded ON images (collection, embedded_seq) WHERE status = 'ready';

-- How far the search for duplicates in a collection has come: the pictures of this space up to `seq` are compared with
-- each other. `finished_at` is when a search last came to its end.
CREATE TABLE duplicate_scans (
    collection  TEXT PRIMARY KEY REFERENCES collections(label) ON DELETE CASCADE,
    space       TEXT NOT NULL,
    seq         INTEGER NOT NULL DEFAULT 0,
    finished_at TEXT
) STRICT;

-- Pairs of pictures that are alike, the lower key first. `bits` is how many bits of their hashes differ, `distance` is
-- 1 - cosine of their vectors; NULL if the pair is too far apart for that kind.
CREATE TABLE duplicate_pairs (
    a          INTEGER NOT NULL REFERENCES images(key) ON DELETE CASCADE,
    b          INTEGER NOT NULL REFERENCES images(key) ON DELETE CASCADE,
    collection TEXT NOT NULL,
    bits       INTEGER,
    distance   REAL,
    PRIMARY KEY (a, b)
) STRICT, WITHOUT ROWID;
CREATE INDEX duplicate_pairs_second ON duplicate_pairs (b);
CREATE INDEX duplicate_pairs_listed ON duplicate_pairs (collection);

-- Other bytes are another picture.
CREATE TRIGGER images_hash_replaced AFTER UPDATE OF sha256 ON images WHEN OLD.sha256 IS NOT NEW.sha256 BEGIN
    UPDATE images SET perceptual_hash = NULL WHERE key = NEW.key;
    DELETE FROM duplicate_pairs WHERE a = NEW.key;
    DELETE FROM duplicate_pairs WHERE b = NEW.key;
END;
