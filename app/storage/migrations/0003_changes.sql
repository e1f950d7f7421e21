-- Rows that were changed or deleted, so that the set of rows which a filter lets through can be brought up to
-- date without asking every row again. A new row needs no entry: its key is the highest. The last 100,000
-- entries are kept; who has missed some asks every row.
CREATE TABLE changes (
    n      INTEGER PRIMARY KEY AUTOINCREMENT,
    target TEXT NOT NULL CHECK (target IN ('images', 'texts')),
    key    INTEGER NOT NULL
) STRICT;

CREATE TRIGGER changes_forgotten AFTER INSERT ON changes BEGIN
    DELETE FROM changes WHERE n <= NEW.n - 100000;
END;

-- What filters compare, and nothing else: the steps of a picture through the queue are no change.
CREATE TRIGGER images_changed AFTER UPDATE ON images
WHEN (OLD.collection, OLD.id, OLD.caption, OLD.tags, OLD.metadata, OLD.source, OLD.format, OLD.width, OLD.height,
      OLD.bytes, OLD.animated, OLD.job_id, OLD.created_at)
  IS NOT (NEW.collection, NEW.id, NEW.caption, NEW.tags, NEW.metadata, NEW.source, NEW.format, NEW.width, NEW.height,
      NEW.bytes, NEW.animated, NEW.job_id, NEW.created_at)
BEGIN
    INSERT INTO changes (target, key) VALUES ('images', NEW.key);
END;
CREATE TRIGGER images_deleted AFTER DELETE ON images BEGIN
    INSERT INTO changes (target, key) VALUES ('images', OLD.key);
END;
CREATE TRIGGER texts_changed AFTER UPDATE ON texts
WHEN (OLD.collection, OLD.id, OLD.text, OLD.metadata, OLD.created_at)
  IS NOT (NEW.collection, NEW.id, NEW.text, NEW.metadata, NEW.created_at)
BEGIN
    INSERT INTO changes (target, key) VALUES ('texts', NEW.key);
END;
CREATE TRIGGER texts_deleted AFTER DELETE ON texts BEGIN
    INSERT INTO changes (target, key) VALUES ('texts', OLD.key);
END;
