-- The triggers of `app/storage/migrations/`, one for each table and kind of change. The words of pictures are the
-- exception: a trigger only marks the row of a picture whose words changed, and the write thread fills it before the
-- commit (keywords.py), by the same functions that fill the index of SQLite.

CREATE TABLE image_words (
    key   BIGINT PRIMARY KEY,
    words TSVECTOR,
    size  BIGINT,
    parts TEXT COLLATE "C"
);
CREATE INDEX image_words_missing ON image_words (key) WHERE words IS NULL;
CREATE INDEX image_words_found ON image_words USING gin (words) WITH (fastupdate = off);
CREATE INDEX image_words_parts ON image_words USING gin (parts gin_trgm_ops) WITH (fastupdate = off);

CREATE FUNCTION change_turn(job TEXT, change BIGINT) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF change > 0 THEN
        INSERT INTO turns (job_id, turn, step, waiting, held)
        VALUES (coalesce(job, ''), coalesce((SELECT min(turn) FROM turns WHERE held = 0), 0),
                coalesce((SELECT step FROM jobs WHERE id = job), 1), change,
                coalesce((SELECT paused FROM jobs WHERE id = job), 0))
        ON CONFLICT (job_id) DO UPDATE SET waiting = turns.waiting + change;
    ELSE
        UPDATE turns SET waiting = waiting + change WHERE job_id = coalesce(job, '');
        DELETE FROM turns WHERE job_id = coalesce(job, '') AND waiting <= 0;
    END IF;
END
$$;

CREATE FUNCTION images_added() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO image_words (key) VALUES (NEW.key);
    RETURN NULL;
END
$$;
CREATE TRIGGER images_added AFTER INSERT ON images FOR EACH ROW EXECUTE FUNCTION images_added();

CREATE FUNCTION images_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.sha256 <> OLD.sha256 THEN  -- what is known of the bytes before says nothing of these
        DELETE FROM given WHERE image_key = NEW.key;
        UPDATE images SET perceptual_hash = NULL WHERE key = NEW.key;
        DELETE FROM duplicate_pairs WHERE a = NEW.key;
        DELETE FROM duplicate_pairs WHERE b = NEW.key;
        DELETE FROM enrichments WHERE key = NEW.key;
        DELETE FROM matches WHERE key = NEW.key;
    END IF;
    IF (OLD.collection, OLD.id, OLD.caption, OLD.tags, OLD.metadata, OLD.source, OLD.format, OLD.width, OLD.height,
        OLD.bytes, OLD.animated, OLD.job_id, OLD.created_at, OLD.taken_at, OLD.taken_offset, OLD.camera, OLD.lens,
        OLD.latitude, OLD.longitude, OLD.ocr_text, OLD.generated_caption, OLD.video_id, OLD.t_ms, OLD.auto_tags)
      IS DISTINCT FROM
       (NEW.collection, NEW.id, NEW.caption, NEW.tags, NEW.metadata, NEW.source, NEW.format, NEW.width, NEW.height,
        NEW.bytes, NEW.animated, NEW.job_id, NEW.created_at, NEW.taken_at, NEW.taken_offset, NEW.camera, NEW.lens,
        NEW.latitude, NEW.longitude, NEW.ocr_text, NEW.generated_caption, NEW.video_id, NEW.t_ms, NEW.auto_tags)
    THEN
        INSERT INTO changes (target, key) VALUES ('images', NEW.key);
    END IF;
    IF (OLD.caption, OLD.tags, OLD.source, OLD.ocr_text, OLD.generated_caption)
      IS DISTINCT FROM (NEW.caption, NEW.tags, NEW.source, NEW.ocr_text, NEW.generated_caption)
    THEN
        UPDATE image_words SET words = NULL WHERE key = NEW.key;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER images_updated AFTER UPDATE ON images FOR EACH ROW
WHEN ((OLD.sha256, OLD.collection, OLD.id, OLD.caption, OLD.tags, OLD.metadata, OLD.source, OLD.format, OLD.width,
       OLD.height, OLD.bytes, OLD.animated, OLD.job_id, OLD.created_at, OLD.taken_at, OLD.taken_offset, OLD.camera,
       OLD.lens, OLD.latitude, OLD.longitude, OLD.ocr_text, OLD.generated_caption, OLD.video_id, OLD.t_ms, OLD.auto_tags)
  IS DISTINCT FROM
      (NEW.sha256, NEW.collection, NEW.id, NEW.caption, NEW.tags, NEW.metadata, NEW.source, NEW.format, NEW.width,
       NEW.height, NEW.bytes, NEW.animated, NEW.job_id, NEW.created_at, NEW.taken_at, NEW.taken_offset, NEW.camera,
       NEW.lens, NEW.latitude, NEW.longitude, NEW.ocr_text, NEW.generated_caption, NEW.video_id, NEW.t_ms, NEW.auto_tags))
EXECUTE FUNCTION images_updated();

CREATE FUNCTION images_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (target, key) VALUES ('images', OLD.key);
    DELETE FROM image_words WHERE key = OLD.key;
    DELETE FROM enrichments WHERE key = OLD.key;
    RETURN NULL;
END
$$;
CREATE TRIGGER images_deleted AFTER DELETE ON images FOR EACH ROW EXECUTE FUNCTION images_deleted();

CREATE FUNCTION texts_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO changes (target, key) VALUES ('texts', OLD.key);
    ELSIF (OLD.collection, OLD.id, OLD.text, OLD.metadata, OLD.created_at)
      IS DISTINCT FROM (NEW.collection, NEW.id, NEW.text, NEW.metadata, NEW.created_at) THEN
        INSERT INTO changes (target, key) VALUES ('texts', NEW.key);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER texts_changed AFTER UPDATE OR DELETE ON texts FOR EACH ROW EXECUTE FUNCTION texts_changed();

CREATE FUNCTION forget_oldest() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME = 'changes' THEN
        DELETE FROM changes WHERE n <= NEW.n - 100000;
    ELSE
        DELETE FROM answers WHERE n <= NEW.n - 10000;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER changes_forgotten AFTER INSERT ON changes FOR EACH ROW EXECUTE FUNCTION forget_oldest();
CREATE TRIGGER answers_forgotten AFTER INSERT ON answers FOR EACH ROW EXECUTE FUNCTION forget_oldest();

CREATE FUNCTION sources_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE waiting SET items = items + max(NEW.pending, 1), bytes = bytes + NEW.bytes;
        UPDATE jobs SET uploads = uploads + 1 WHERE id = NEW.job_id;
    ELSIF TG_OP = 'DELETE' THEN
        UPDATE waiting SET items = items - max(OLD.pending, 1), bytes = bytes - OLD.bytes;
        UPDATE jobs SET uploads = uploads - 1 WHERE id = OLD.job_id;
    ELSIF (NEW.pending, NEW.bytes) IS DISTINCT FROM (OLD.pending, OLD.bytes) THEN
        UPDATE waiting SET items = items + max(NEW.pending, 1) - max(OLD.pending, 1),
            bytes = bytes + NEW.bytes - OLD.bytes;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER sources_changed AFTER INSERT OR UPDATE OR DELETE ON sources
FOR EACH ROW EXECUTE FUNCTION sources_changed();

CREATE FUNCTION watched_files_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        UPDATE watches SET files = files + 1, failed = failed + (NEW.error_code IS NOT NULL)::int WHERE n = NEW.watch;
    ELSIF TG_OP = 'DELETE' THEN
        UPDATE watches SET files = files - 1, failed = failed - (OLD.error_code IS NOT NULL)::int WHERE n = OLD.watch;
    ELSE
        UPDATE watches SET failed = failed + (NEW.error_code IS NOT NULL)::int - (OLD.error_code IS NOT NULL)::int
        WHERE n = NEW.watch;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER watched_files_changed AFTER INSERT OR UPDATE OR DELETE ON watched_files
FOR EACH ROW EXECUTE FUNCTION watched_files_changed();

-- Once for a statement: turns, the depth of the queue, and how many pictures there are, as counting a million takes PostgreSQL a tenth of a second. A collection that has no row
-- for one of the statuses and formats that change is counted anew; one without any row is counted when it is asked for.
CREATE TABLE image_counts (
    collection TEXT COLLATE "C" NOT NULL REFERENCES collections (label) ON DELETE CASCADE,
    status     TEXT COLLATE "C" NOT NULL,
    format     TEXT COLLATE "C" NOT NULL,
    n          BIGINT NOT NULL,
    PRIMARY KEY (collection, status, format)
) WITH (fillfactor = 50);

CREATE FUNCTION add_to_count(label TEXT, of_status TEXT, of_format TEXT, change BIGINT) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE image_counts SET n = n + change WHERE collection = label AND status = of_status AND format = of_format;
    IF NOT FOUND THEN
        PERFORM set_config('sightline.recounted', current_setting('sightline.recounted') || chr(10) || label, true);
    END IF;
END
$$;

CREATE FUNCTION images_counted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('sightline.recounted', '', true);
    IF TG_OP = 'INSERT' THEN
        PERFORM add_to_count(collection, status, format, sum(change)::bigint)
        FROM (SELECT collection, status, format, job_id, attempts, bytes, 1 AS change FROM new_rows) AS rows
        GROUP BY collection, status, format HAVING sum(change) <> 0;
        PERFORM change_turn(job_id, sum(change)::bigint)
        FROM (SELECT collection, status, format, job_id, attempts, bytes, 1 AS change FROM new_rows) AS rows
        WHERE status = 'queued' AND attempts = 0 GROUP BY job_id HAVING sum(change) <> 0 ORDER BY job_id;
        UPDATE waiting SET items = items + added.n, bytes = waiting.bytes + added.bytes
        FROM (
            SELECT sum(change)::bigint AS n, sum(change * bytes)::bigint AS bytes
            FROM (SELECT collection, status, format, job_id, attempts, bytes, 1 AS change FROM new_rows) AS rows
            WHERE status IN ('queued', 'processing')
        ) AS added WHERE added.n <> 0 OR added.bytes <> 0;
    ELSIF TG_OP = 'DELETE' THEN
        PERFORM add_to_count(collection, status, format, sum(change)::bigint)
        FROM (SELECT collection, status, format, job_id, attempts, bytes, -1 AS change FROM old_rows) AS rows
        GROUP BY collection, status, format HAVING sum(change) <> 0;
        PERFORM change_turn(job_id, sum(change)::bigint)
        FROM (SELECT collection, status, format, job_id, attempts, bytes, -1 AS change FROM old_rows) AS rows
        WHERE status = 'queued' AND attempts = 0 GROUP BY job_id HAVING sum(change) <> 0 ORDER BY job_id;
        UPDATE waiting SET items = items + added.n, bytes = waiting.bytes + added.bytes
        FROM (
            SELECT sum(change)::bigint AS n, sum(change * bytes)::bigint AS bytes
            FROM (SELECT collection, status, format, job_id, attempts, bytes, -1 AS change FROM old_rows) AS rows
            WHERE status IN ('queued', 'processing')
        ) AS added WHERE added.n <> 0 OR added.bytes <> 0;
    ELSE
        PERFORM add_to_count(collection, status, format, sum(change)::bigint)
        FROM (SELECT collection, status, format, job_id, attempts, bytes, 1 AS change FROM new_rows
            UNION ALL SELECT collection, status, format, job_id, attempts, bytes, -1 AS change FROM old_rows) AS rows
        GROUP BY collection, status, format HAVING sum(change) <> 0;
        PERFORM change_turn(job_id, sum(change)::bigint)
        FROM (SELECT collection, status, format, job_id, attempts, bytes, 1 AS change FROM new_rows
            UNION ALL SELECT collection, status, format, job_id, attempts, bytes, -1 AS change FROM old_rows) AS rows
        WHERE status = 'queued' AND attempts = 0 GROUP BY job_id HAVING sum(change) <> 0 ORDER BY job_id;
        UPDATE waiting SET items = items + added.n, bytes = waiting.bytes + added.bytes
        FROM (
            SELECT sum(change)::bigint AS n, sum(change * bytes)::bigint AS bytes
            FROM (SELECT collection, status, format, job_id, attempts, bytes, 1 AS change FROM new_rows
            UNION ALL SELECT collection, status, format, job_id, attempts, bytes, -1 AS change FROM old_rows) AS rows
            WHERE status IN ('queued', 'processing')
        ) AS added WHERE added.n <> 0 OR added.bytes <> 0;
    END IF;
    IF current_setting('sightline.recounted') <> '' THEN
        DELETE FROM image_counts
        WHERE collection = ANY(string_to_array(current_setting('sightline.recounted'), chr(10)));
        INSERT INTO image_counts SELECT collection, status, format, count(*) FROM images
        WHERE collection = ANY(string_to_array(current_setting('sightline.recounted'), chr(10)))
        GROUP BY collection, status, format;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER images_counted_in AFTER INSERT ON images
REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION images_counted();
CREATE TRIGGER images_counted_again AFTER UPDATE ON images
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION images_counted();
CREATE TRIGGER images_counted_out AFTER DELETE ON images
REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION images_counted();

CREATE FUNCTION count_by_status(label TEXT) RETURNS TABLE (status TEXT, n BIGINT) LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY SELECT c.status, sum(c.n)::bigint FROM image_counts c WHERE c.collection = label GROUP BY c.status;
    IF NOT FOUND THEN
        RETURN QUERY SELECT i.status, count(*) FROM images i WHERE i.collection = label GROUP BY i.status;
    END IF;
END
$$;
