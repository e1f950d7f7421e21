-- Watched folders: what lies in them becomes, stays and ceases to be pictures of a collection. `kind` is 'folder' when
-- the server reads the folder at `place`, 'client' when `sightline watch` on another machine sends it. `collection` is a
-- label. `title` begins the source of each picture. `identity` is the device and inode of the folder when it was scanned.
-- `held` is how many deletions wait for a confirmation.
CREATE TABLE watches (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT NOT NULL UNIQUE,
    collection TEXT NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('folder', 'client')),
    place      TEXT NOT NULL,
    title      TEXT NOT NULL,
    options    TEXT NOT NULL DEFAULT '{}',
    created_at TEXT NOT NULL,
    paused     INTEGER NOT NULL DEFAULT 0,
    state      TEXT NOT NULL DEFAULT 'new',
    fault      TEXT,
    held       INTEGER NOT NULL DEFAULT 0,
    confirmed  INTEGER NOT NULL DEFAULT 0,
    identity   TEXT,
    scanned_at TEXT,
    changed_at TEXT,
    seen_at    TEXT,
    job_id     TEXT,
    files      INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (collection, kind, place)
) STRICT;

-- What each file was when it was applied. `beside` changes with the files beside it, `said` (JSON) is what they said.
-- `is_ours`: the watch brought the picture, so it may delete it. `is_mounted`: the file lay on another device than the
-- watched folder.
CREATE TABLE watched_files (
    watch        INTEGER NOT NULL,
    folder       TEXT NOT NULL,
    name         TEXT NOT NULL,
    size         INTEGER NOT NULL,
    mtime_ns     INTEGER NOT NULL,
    inode        INTEGER NOT NULL,
    sha256       TEXT NOT NULL,
    beside       TEXT NOT NULL,
    said         TEXT,
    is_mounted   INTEGER NOT NULL,
    image_key    INTEGER,
    is_ours      INTEGER NOT NULL DEFAULT 0,
    error_code   TEXT,
    error_detail TEXT,
    PRIMARY KEY (watch, folder, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX watched_files_inode ON watched_files (watch, inode);
CREATE INDEX watched_files_bytes ON watched_files (watch, sha256);
CREATE INDEX watched_files_picture ON watched_files (image_key) WHERE image_key IS NOT NULL;
CREATE INDEX watched_files_failed ON watched_files (watch, folder, name) WHERE error_code IS NOT NULL;

CREATE TRIGGER watched_files_added AFTER INSERT ON watched_files BEGIN
    UPDATE watches SET files = files + 1, failed = failed + (NEW.error_code IS NOT NULL) WHERE n = NEW.watch;
END;
CREATE TRIGGER watched_files_changed AFTER UPDATE OF error_code ON watched_files BEGIN
    UPDATE watches SET failed = failed + (NEW.error_code IS NOT NULL) - (OLD.error_code IS NOT NULL)
    WHERE n = NEW.watch;
END;
CREATE TRIGGER watched_files_gone AFTER DELETE ON watched_files BEGIN
    UPDATE watches SET files = files - 1, failed = failed - (OLD.error_code IS NOT NULL) WHERE n = OLD.watch;
END;
