-- What a picture carries: when, with what and where it was taken, the words read in it, the caption that a model wrote,
-- and the video that it is a frame of. `taken_at` is the time on the camera's clock, as `YYYY-MM-DDTHH:MM:SS.mmm`;
-- `taken_offset` is how many minutes that clock was ahead of UTC, NULL if the camera does not tell.
ALTER TABLE images ADD COLUMN taken_at TEXT;
ALTER TABLE images ADD COLUMN taken_offset INTEGER;
ALTER TABLE images ADD COLUMN camera TEXT;
ALTER TABLE images ADD COLUMN lens TEXT;
ALTER TABLE images ADD COLUMN latitude REAL;
ALTER TABLE images ADD COLUMN longitude REAL;
ALTER TABLE images ADD COLUMN ocr_text TEXT;
ALTER TABLE images ADD COLUMN generated_caption TEXT;
ALTER TABLE images ADD COLUMN video_id TEXT;
ALTER TABLE images ADD COLUMN t_ms INTEGER;
CREATE INDEX images_of_videos ON images (collection, video_id, t_ms) WHERE video_id IS NOT NULL;

-- What filters compare (0003_changes.sql), and these.
DROP TRIGGER images_changed;
CREATE TRIGGER images_changed AFTER UPDATE ON images
WHEN (OLD.collection, OLD.id, OLD.caption, OLD.tags, OLD.metadata, OLD.source, OLD.format, OLD.width, OLD.height,
      OLD.bytes, OLD.animated, OLD.job_id, OLD.created_at, OLD.taken_at, OLD.taken_offset, OLD.camera, OLD.lens,
      OLD.latitude, OLD.longitude, OLD.ocr_text, OLD.generated_caption, OLD.video_id, OLD.t_ms)
  IS NOT (NEW.collection, NEW.id, NEW.caption, NEW.tags, NEW.metadata, NEW.source, NEW.format, NEW.width, NEW.height,
      NEW.bytes, NEW.animated, NEW.job_id, NEW.created_at, NEW.taken_at, NEW.taken_offset, NEW.camera, NEW.lens,
      NEW.latitude, NEW.longitude, NEW.ocr_text, NEW.generated_caption, NEW.video_id, NEW.t_ms)
BEGIN
    INSERT INTO changes (target, key) VALUES ('images', NEW.key);
END;

-- The word index (0013_keywords.sql) with the words read in a picture and of its generated caption.
DROP TRIGGER images_words_added;
DROP TRIGGER images_words_changed;
DROP TRIGGER images_words_deleted;
DROP TABLE image_words;
DROP TABLE image_parts;
CREATE VIRTUAL TABLE image_words USING fts5(
    caption, tags, name, folder, ocr, generated,
    content='', contentless_delete=1, tokenize='porter unicode61 remove_diacritics 2'
);
INSERT INTO image_words (image_words, rank) VALUES ('rank', 'bm25(1.0, 2.0, 3.0, 0.5, 0.5, 0.5)');
CREATE VIRTUAL TABLE image_parts USING fts5(
    text, content='', contentless_delete=1, tokenize='trigram remove_diacritics 1'
);
CREATE VIEW spelled_images AS
SELECT key, words_of('caption', caption) AS caption, words_of('tags', tags) AS tags, words_of('name', source) AS name,
    words_of('folder', source) AS folder, words_of('ocr', ocr_text) AS ocr,
    words_of('generated', generated_caption) AS generated
FROM images;

CREATE TRIGGER images_words_added AFTER INSERT ON images BEGIN
    INSERT INTO image_words (rowid, caption, tags, name, folder, ocr, generated)
    SELECT key, caption, tags, name, folder, ocr, generated FROM spelled_images WHERE key = NEW.key;
    INSERT INTO image_parts (rowid, text)
    SELECT key, concat_ws(' ', caption, tags, name, ocr, generated) FROM spelled_images WHERE key = NEW.key;
END;
CREATE TRIGGER images_words_changed AFTER UPDATE OF caption, tags, source, ocr_text, generated_caption ON images
WHEN (OLD.caption, OLD.tags, OLD.source, OLD.ocr_text, OLD.generated_caption)
  IS NOT (NEW.caption, NEW.tags, NEW.source, NEW.ocr_text, NEW.generated_caption)
BEGIN
    DELETE FROM image_words WHERE rowid = NEW.key;
    DELETE FROM image_parts WHERE rowid = NEW.key;
    INSERT INTO image_words (rowid, caption, tags, name, folder, ocr, generated)
    SELECT key, caption, tags, name, folder, ocr, generated FROM spelled_images WHERE key = NEW.key;
    INSERT INTO image_parts (rowid, text)
    SELECT key, concat_ws(' ', caption, tags, name, ocr, generated) FROM spelled_images WHERE key = NEW.key;
END;
CREATE TRIGGER images_words_deleted AFTER DELETE ON images BEGIN
    DELETE FROM image_words WHERE rowid = OLD.key;
    DELETE FROM image_parts WHERE rowid = OLD.key;
END;

INSERT INTO image_words (rowid, caption, tags, name, folder, ocr, generated)
SELECT key, caption, tags, name, folder, ocr, generated FROM spelled_images;
INSERT INTO image_parts (rowid, text)
SELECT key, concat_ws(' ', caption, tags, name, ocr, generated) FROM spelled_images;
