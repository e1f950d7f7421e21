-- Auto-tags: what the labels of its collection say of a picture. `auto_tags` is a JSON list of tags, the likeliest first,
-- and `auto_probabilities` one of their probabilities; `rejected_tags` are those that a person took off, for good.
ALTER TABLE images ADD COLUMN auto_tags TEXT NOT NULL DEFAULT '[]';
ALTER TABLE images ADD COLUMN auto_probabilities TEXT NOT NULL DEFAULT '[]';
ALTER TABLE images ADD COLUMN rejected_tags TEXT NOT NULL DEFAULT '[]';
CREATE TRIGGER images_auto_tagged AFTER UPDATE OF auto_tags ON images
WHEN OLD.auto_tags IS NOT NEW.auto_tags BEGIN
    INSERT INTO changes (target, key) VALUES ('images', NEW.key);
END;

-- The labels of a collection. `labels` is JSON; `revision` counts their changes. Pictures that became ready up to log
-- entry `seq` were compared with them. `applied` (JSON) says how what is there was last tagged as a whole.
CREATE TABLE label_sets (
    collection TEXT PRIMARY KEY REFERENCES collections(label),
    labels     TEXT NOT NULL,
    revision   INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    applied    TEXT,
    updated_at TEXT NOT NULL
) STRICT;

-- Searches that each new picture is compared with. `query` is the body of a search as JSON. Pictures that became ready
-- up to log entry `seq` were compared; a match past `since` is news. `seen` is the last match that somebody has seen.
-- Of the webhook: matches up to `sent` are delivered; those up to `sending` are in the message that is under way.
CREATE TABLE saved_searches (
    id         TEXT PRIMARY KEY,
    collection TEXT NOT NULL REFERENCES collections(label),
    name       TEXT NOT NULL,
    query      TEXT NOT NULL,
    match      TEXT,
    revision   INTEGER NOT NULL DEFAULT 1,
    seq        INTEGER NOT NULL DEFAULT 0,
    since      INTEGER NOT NULL,
    seen       INTEGER NOT NULL DEFAULT 0,
    error      TEXT,
    created_at TEXT NOT NULL,
    url        TEXT,
    secret     BLOB,
    sent       INTEGER NOT NULL DEFAULT 0,
    sending    INTEGER,
    failures   INTEGER NOT NULL DEFAULT 0,
    next_at    REAL NOT NULL DEFAULT 0,
    last_error TEXT,
    disabled_at TEXT
) STRICT;
CREATE INDEX saved_searches_collection ON saved_searches (collection);

-- The pictures that a saved search has found, `n` in the order in which it found them; `is_new` came after the search.
CREATE TABLE matches (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    search     TEXT NOT NULL REFERENCES saved_searches(id) ON DELETE CASCADE,
    key        INTEGER NOT NULL REFERENCES images(key) ON DELETE CASCADE,
    sha256     TEXT NOT NULL,
    is_new     INTEGER NOT NULL,
    score      REAL,
    matched    TEXT NOT NULL,
    matched_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX matches_once ON matches (search, key);
CREATE INDEX matches_of_search ON matches (search, n);
CREATE INDEX matches_of_image ON matches (key);
