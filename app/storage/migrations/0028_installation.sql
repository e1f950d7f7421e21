-- Which installation this database is, and where the bytes of its pictures are: `local`, or the prefix of a bucket.
-- A database from before this table keeps them in its data directory.
CREATE TABLE installation (id TEXT NOT NULL PRIMARY KEY, media TEXT NOT NULL) STRICT;
