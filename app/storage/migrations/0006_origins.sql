-- Where the members of a folder come from: NULL when they were uploaded, 'urls' when they are to be fetched, 'folder'
-- when they lie in a folder of the server's machine (its path is the name of the source).
ALTER TABLE sources ADD COLUMN origin TEXT CHECK (origin IN ('urls', 'folder'));

-- What an origin (a URL, or `file:` and a path) gave last: `tag` is its ETag, or the time and size of the file,
-- `sha256` its bytes. Forgetting it costs reading it again.
CREATE TABLE origins (
    origin TEXT PRIMARY KEY,
    tag    TEXT NOT NULL,
    sha256 TEXT NOT NULL
) STRICT, WITHOUT ROWID;
