-- API keys: what is kept is the SHA-256 of the secret, never the secret. `collections` is a JSON list, NULL for all.
CREATE TABLE keys (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    hash         BLOB NOT NULL,
    scope        TEXT NOT NULL CHECK (scope IN ('search', 'write', 'admin')),
    collections  TEXT,
    created_at   TEXT NOT NULL,
    expires_at   TEXT,
    revoked_at   TEXT,
    last_used_at TEXT
) STRICT;

-- Browsers that gave a key: what is kept is the SHA-256 of their cookie.
CREATE TABLE sessions (
    hash       BLOB PRIMARY KEY,
    key_id     TEXT NOT NULL REFERENCES keys(id) ON DELETE CASCADE,
    expires_at TEXT NOT NULL
) STRICT;
CREATE INDEX sessions_of ON sessions (key_id, expires_at);

-- Another number after every change of keys and sessions, so that a server knows when to read them again.
CREATE TABLE access (version INTEGER NOT NULL) STRICT;
INSERT INTO access VALUES (0);
