-- The space that fills beside the one that serves, for a job; one row at most. `done` and `failed` are keys of the log of
-- the present space; that log was looked through up to `seq`. While `held` is 1 no worker begins a picture: the spaces
-- are about to change places.
CREATE TABLE next_space (
    one    INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    job_id TEXT NOT NULL,
    space  TEXT NOT NULL REFERENCES spaces(fingerprint),
    total  INTEGER NOT NULL DEFAULT 0,
    done   INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    seq    INTEGER NOT NULL DEFAULT -1,
    held   INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What a name in the settings means here since a server has changed its model.
CREATE TABLE model_changes (
    name       TEXT PRIMARY KEY,
    model      TEXT NOT NULL,
    changed_at TEXT NOT NULL
) STRICT;

-- The precision that was asked for with the model of a space; NULL leaves it to the settings.
ALTER TABLE spaces ADD COLUMN precision TEXT;
