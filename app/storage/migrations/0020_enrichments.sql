-- The second passes over pictures that searches find already: text that is read in them (`ocr`), captions that are made
-- for them (`caption`). While a kind `is_on`, each picture that becomes ready waits for it. Pictures that were ready
-- before get their rows a few at a time, newest first: those with keys below `backlog` are still to come.
CREATE TABLE enrichment_kinds (
    kind    TEXT PRIMARY KEY,
    is_on   INTEGER NOT NULL,
    backlog INTEGER NOT NULL
) STRICT;

-- How far a kind is with a picture. The highest `place` is next. `owner` is the process that is at work, `detail` says
-- why a picture was given up, `result` (JSON) is what the kind stores beside the columns of the picture.
CREATE TABLE enrichments (
    key        INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    collection TEXT NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    place      INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    owner      TEXT,
    detail     TEXT,
    result     TEXT,
    PRIMARY KEY (key, kind)
) STRICT;
CREATE INDEX enrichments_next ON enrichments (kind, place) WHERE state = 'waiting';
CREATE INDEX enrichments_running ON enrichments (kind) WHERE state = 'running';
CREATE INDEX enrichments_counted ON enrichments (collection, kind, state);

CREATE TRIGGER enrichments_gone AFTER DELETE ON images BEGIN
    DELETE FROM enrichments WHERE key = OLD.key;
END;
-- What was found in a picture says nothing of the one that has its place.
CREATE TRIGGER enrichments_replaced AFTER UPDATE OF sha256 ON images WHEN OLD.sha256 IS NOT NEW.sha256 BEGIN
    DELETE FROM enrichments WHERE key = NEW.key;
END;
