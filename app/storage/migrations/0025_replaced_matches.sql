-- What a saved search found in a picture says nothing of the one that has its place.
CREATE TRIGGER matches_replaced AFTER UPDATE OF sha256 ON images WHEN OLD.sha256 IS NOT NEW.sha256 BEGIN
    DELETE FROM matches WHERE key = NEW.key;
END;
