CREATE TABLE spaces (
    fingerprint   TEXT PRIMARY KEY,
    model         TEXT NOT NULL,
    weights       TEXT NOT NULL,
    d             INTEGER NOT NULL,
    preprocessing TEXT NOT NULL,
    created_at    TEXT NOT NULL
) STRICT;

-- A collection is stamped with the space of its first vectors.
CREATE TABLE collections (
    name        TEXT PRIMARY KEY,
    description TEXT NOT NULL DEFAULT '',
    space       TEXT REFERENCES spaces(fingerprint),
    created_at  TEXT NOT NULL
) STRICT;

CREATE TABLE images (
    key          INTEGER PRIMARY KEY AUTOINCREMENT,
    collection   TEXT NOT NULL REFERENCES collections(name),
    id           TEXT NOT NULL,
    sha256       TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('queued', 'processing', 'ready', 'failed')),
    error_code   TEXT,
    error_detail TEXT,
    width        INTEGER,
    height       INTEGER,
    format       TEXT NOT NULL,
    bytes        INTEGER NOT NULL,
    animated     INTEGER NOT NULL DEFAULT 0,
    caption      TEXT,
    tags         TEXT NOT NULL DEFAULT '[]',
    metadata     TEXT NOT NULL DEFAULT '{}',
    source       TEXT,
    created_at   TEXT NOT NULL,
    job_id       TEXT,
    embedded_seq INTEGER,
    lease_owner  TEXT,
    lease_until  REAL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (collection, id),
    UNIQUE (collection, sha256)
) STRICT;
CREATE INDEX images_waiting ON images (status, key) WHERE status IN ('queued', 'processing');
CREATE INDEX images_listed ON images (collection, key);
CREATE INDEX images_counted ON images (collection, status);
CREATE INDEX images_bytes ON images (sha256);

CREATE TABLE texts (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL REFERENCES collections(name),
    id         TEXT NOT NULL,
    text       TEXT NOT NULL,
    metadata   TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL,
    UNIQUE (collection, id)
) STRICT;

-- The log that every index follows. A key has one 'add' at most; removing it leaves a 'remove' behind.
CREATE TABLE embeddings (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    collection TEXT NOT NULL,
    space      TEXT NOT NULL REFERENCES spaces(fingerprint),
    target     TEXT NOT NULL CHECK (target IN ('images', 'texts')),
    op         TEXT NOT NULL CHECK (op IN ('add', 'remove')),
    key        INTEGER NOT NULL,
    vector     BLOB
) STRICT;
CREATE INDEX embeddings_followed ON embeddings (collection, space, target, seq);
CREATE INDEX embeddings_keyed ON embeddings (target, key);

CREATE TABLE jobs (
    id          TEXT PRIMARY KEY,
    collection  TEXT NOT NULL REFERENCES collections(name),
    kind        TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    total       INTEGER NOT NULL DEFAULT 0,
    done        INTEGER NOT NULL DEFAULT 0,
    failed      INTEGER NOT NULL DEFAULT 0,
    duplicates  INTEGER NOT NULL DEFAULT 0,
    created_at  TEXT NOT NULL,
    started_at  TEXT,
    finished_at TEXT,
    last_seq    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX jobs_listed ON jobs (created_at, id);

CREATE TABLE job_items (
    job_id       TEXT NOT NULL REFERENCES jobs(id),
    n            INTEGER NOT NULL,
    name         TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('queued', 'done', 'failed', 'duplicate')),
    image_key    INTEGER,
    image_id     TEXT,
    error_code   TEXT,
    error_detail TEXT,
    PRIMARY KEY (job_id, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_items_waiting ON job_items (image_key) WHERE status = 'queued';
CREATE INDEX job_items_listed ON job_items (job_id, status, n);

-- Uploads of a job that have not been taken in completely: an archive, or a folder of pictures.
-- `imported` members are in; `pending` is how many are still to come (0 until an archive is expanded).
CREATE TABLE sources (
    job_id      TEXT NOT NULL REFERENCES jobs(id),
    n           INTEGER NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('archive', 'folder')),
    name        TEXT NOT NULL,
    imported    INTEGER NOT NULL DEFAULT 0,
    pending     INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    lease_until REAL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, n)
) STRICT, WITHOUT ROWID;

INSERT INTO collections (name, created_at) VALUES ('default', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'));
