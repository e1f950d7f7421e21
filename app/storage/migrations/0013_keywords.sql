-- The words of captions, tags, file names and folders, for keyword searches; `words_of` (app/storage/keywords.py)
-- spells them for the index. `image_parts` finds parts of words. The triggers keep both in the transaction of the row.
CREATE VIRTUAL TABLE image_words USING fts5(
    caption, tags, name, folder,
    content='', contentless_delete=1, tokenize='porter unicode61 remove_diacritics 2'
);
INSERT INTO image_words (image_words, rank) VALUES ('rank', 'bm25(1.0, 2.0, 3.0, 0.5)');
CREATE VIRTUAL TABLE image_parts USING fts5(
    text, content='', contentless_delete=1, tokenize='trigram remove_diacritics 1'
);

CREATE TRIGGER images_words_added AFTER INSERT ON images BEGIN
    INSERT INTO image_words (rowid, caption, tags, name, folder)
    VALUES (NEW.key, words_of('caption', NEW.caption), words_of('tags', NEW.tags), words_of('name', NEW.source),
            words_of('folder', NEW.source));
    INSERT INTO image_parts (rowid, text)
    VALUES (NEW.key, words_of('caption', NEW.caption) || ' ' || words_of('tags', NEW.tags) || ' '
            || words_of('name', NEW.source));
END;
CREATE TRIGGER images_words_changed AFTER UPDATE OF caption, tags, source ON images
WHEN (OLD.caption, OLD.tags, OLD.source) IS NOT (NEW.caption, NEW.tags, NEW.source) BEGIN
    DELETE FROM image_words WHERE rowid = NEW.key;
    DELETE FROM image_parts WHERE rowid = NEW.key;
    INSERT INTO image_words (rowid, caption, tags, name, folder)
    VALUES (NEW.key, words_of('caption', NEW.caption), words_of('tags', NEW.tags), words_of('name', NEW.source),
            words_of('folder', NEW.source));
    INSERT INTO image_parts (rowid, text)
    VALUES (NEW.key, words_of('caption', NEW.caption) || ' ' || words_of('tags', NEW.tags) || ' '
            || words_of('name', NEW.source));
END;
CREATE TRIGGER images_words_deleted AFTER DELETE ON images BEGIN
    DELETE FROM image_words WHERE rowid = OLD.key;
    DELETE FROM image_parts WHERE rowid = OLD.key;
END;

INSERT INTO image_words (rowid, caption, tags, name, folder)
SELECT key, words_of('caption', caption), words_of('tags', tags), words_of('name', source), words_of('folder', source)
FROM images;
INSERT INTO image_parts (rowid, text)
SELECT key, words_of('caption', caption) || ' ' || words_of('tags', tags) || ' ' || words_of('name', source)
FROM images;
