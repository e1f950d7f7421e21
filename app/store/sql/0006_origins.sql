-- Where the members of a folder come from: NULL when they were uploaded, 'urls' when they are to be fetched.
ALTER TABLE sources ADD COLUMN origin TEXT CHECK (origin IN ('urls'));

-- What an origin gave last: `tag` is its ETag, `sha256` its bytes. Forgetting it costs a download.
CREATE TABLE origins (
    url    TEXT PRIMARY KEY,
    tag    TEXT NOT NULL,
    sha256 TEXT NOT NULL
) STRICT, WITHOUT ROWID;
