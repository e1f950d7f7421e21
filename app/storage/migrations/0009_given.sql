-- Vectors that came with pictures: a worker takes them in place of the model's own when it finishes these, if they are
-- of its space. Other bytes are another picture.
CREATE TABLE given (
    image_key INTEGER PRIMARY KEY REFERENCES images(key) ON DELETE CASCADE,
    space     TEXT NOT NULL,
    vector    BLOB NOT NULL
) STRICT;
CREATE TRIGGER given_replaced AFTER UPDATE OF sha256 ON images WHEN OLD.sha256 IS NOT NEW.sha256 BEGIN
    DELETE FROM given WHERE image_key = NEW.key;
END;
