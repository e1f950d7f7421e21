-- A source is 'named' when a worker finds out what is in it (its place is its name), an 'archive' or a 'folder' when it
-- was sent. `origin` is the kind of source that brings the members, NULL when they are here; which kinds there are is
-- not for the schema to say. `options` are what the request says of it. `position` is how many bytes of the manifest are
-- taken in: 0 of what was begun before there were positions, too.
CREATE TABLE sources_new (
    job_id      TEXT NOT NULL REFERENCES jobs(id),
    n           INTEGER NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('archive', 'folder', 'named')),
    name        TEXT NOT NULL,
    imported    INTEGER NOT NULL DEFAULT 0,
    pending     INTEGER NOT NULL DEFAULT 0,
    lease_owner TEXT,
    lease_until REAL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    origin      TEXT,
    options     TEXT NOT NULL DEFAULT '{}',
    position    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, n)
) STRICT, WITHOUT ROWID;
INSERT INTO sources_new (job_id, n, kind, name, imported, pending, lease_owner, lease_until, attempts, origin)
SELECT job_id, n, iif(origin = 'folder', 'named', kind), name, imported, pending, lease_owner, lease_until, attempts, origin
FROM sources;
DROP TABLE sources;
ALTER TABLE sources_new RENAME TO sources;
