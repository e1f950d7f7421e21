-- A job that is `paused` gets no turn. `step` is what a picture of it costs its turn: 1 comes first, 16 last.
ALTER TABLE jobs ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN step INTEGER NOT NULL DEFAULT 4;
-- `uploads` is how many sources are not taken in yet, `turn` what was taken in of them, in steps: the least is next.
ALTER TABLE jobs ADD COLUMN uploads INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET uploads = (SELECT count(*) FROM sources WHERE job_id = jobs.id);
CREATE INDEX jobs_intake ON jobs (turn) WHERE uploads > 0 AND paused = 0;
DROP INDEX jobs_listed;
CREATE INDEX jobs_listed ON jobs (created_at);
CREATE INDEX jobs_of ON jobs (collection, created_at);
CREATE INDEX jobs_ended ON jobs (finished_at) WHERE finished_at IS NOT NULL;

-- How often the server died while this picture alone was at work.
ALTER TABLE images ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;
CREATE INDEX images_fresh ON images (job_id, key) WHERE status = 'queued' AND attempts = 0;
CREATE INDEX images_tried ON images (deaths, key) WHERE status = 'queued' AND attempts > 0;

-- How large what is not taken in of a source is.
ALTER TABLE sources ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

-- Who has pictures waiting that were not tried yet: a job, or '' for all that came one by one. The least turn is next;
-- `n` is the order of arrival. There is a row as long as there are such pictures; triggers keep it. A newcomer begins
-- where the others are.
CREATE TABLE turns (
    n       INTEGER PRIMARY KEY,
    job_id  TEXT NOT NULL UNIQUE,
    turn    INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    held    INTEGER NOT NULL
) STRICT;
CREATE INDEX turns_next ON turns (turn, n) WHERE held = 0;
INSERT INTO turns (job_id, turn, step, waiting, held)
SELECT coalesce(job_id, ''), 0, iif(job_id IS NULL, 1, 4), count(*), 0
FROM images WHERE status = 'queued' AND attempts = 0 GROUP BY job_id ORDER BY min(key);

-- What is not done: pictures, and members of sources that are not taken in. One row.
CREATE TABLE waiting (items INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO waiting
SELECT (SELECT count(*) FROM images WHERE status IN ('queued', 'processing'))
     + (SELECT coalesce(sum(max(pending, 1)), 0) FROM sources),
       (SELECT coalesce(sum(bytes), 0) FROM images WHERE status IN ('queued', 'processing'));

CREATE TRIGGER images_turn_added AFTER INSERT ON images WHEN NEW.status = 'queued' AND NEW.attempts = 0 BEGIN
    INSERT INTO turns (job_id, turn, step, waiting, held)
    VALUES (coalesce(NEW.job_id, ''), coalesce((SELECT min(turn) FROM turns WHERE held = 0), 0),
            coalesce((SELECT step FROM jobs WHERE id = NEW.job_id), 1), 1,
            coalesce((SELECT paused FROM jobs WHERE id = NEW.job_id), 0))
    ON CONFLICT (job_id) DO UPDATE SET waiting = waiting + 1;
END;
CREATE TRIGGER images_turn_again AFTER UPDATE OF status, attempts, job_id ON images
WHEN NEW.status = 'queued' AND NEW.attempts = 0
 AND NOT (OLD.status = 'queued' AND OLD.attempts = 0 AND NEW.job_id IS OLD.job_id)
BEGIN
    INSERT INTO turns (job_id, turn, step, waiting, held)
    VALUES (coalesce(NEW.job_id, ''), coalesce((SELECT min(turn) FROM turns WHERE held = 0), 0),
            coalesce((SELECT step FROM jobs WHERE id = NEW.job_id), 1), 1,
            coalesce((SELECT paused FROM jobs WHERE id = NEW.job_id), 0))
    ON CONFLICT (job_id) DO UPDATE SET waiting = waiting + 1;
END;
CREATE TRIGGER images_turn_taken AFTER UPDATE OF status, attempts, job_id ON images
WHEN OLD.status = 'queued' AND OLD.attempts = 0
 AND NOT (NEW.status = 'queued' AND NEW.attempts = 0 AND NEW.job_id IS OLD.job_id)
BEGIN
    UPDATE turns SET waiting = waiting - 1 WHERE job_id = coalesce(OLD.job_id, '');
    DELETE FROM turns WHERE job_id = coalesce(OLD.job_id, '') AND waiting <= 0;
END;
CREATE TRIGGER images_turn_gone AFTER DELETE ON images WHEN OLD.status = 'queued' AND OLD.attempts = 0 BEGIN
    UPDATE turns SET waiting = waiting - 1 WHERE job_id = coalesce(OLD.job_id, '');
    DELETE FROM turns WHERE job_id = coalesce(OLD.job_id, '') AND waiting <= 0;
END;

CREATE TRIGGER images_wait_added AFTER INSERT ON images WHEN NEW.status IN ('queued', 'processing') BEGIN
    UPDATE waiting SET items = items + 1, bytes = bytes + NEW.bytes;
END;
CREATE TRIGGER images_wait_changed AFTER UPDATE OF status, bytes ON images
WHEN (OLD.status IN ('queued', 'processing')) IS NOT (NEW.status IN ('queued', 'processing'))
  OR (NEW.bytes IS NOT OLD.bytes AND NEW.status IN ('queued', 'processing'))
BEGIN
    UPDATE waiting
    SET items = items + (NEW.status IN ('queued', 'processing')) - (OLD.status IN ('queued', 'processing')),
        bytes = bytes + iif(NEW.status IN ('queued', 'processing'), NEW.bytes, 0)
                      - iif(OLD.status IN ('queued', 'processing'), OLD.bytes, 0);
END;
CREATE TRIGGER images_wait_gone AFTER DELETE ON images WHEN OLD.status IN ('queued', 'processing') BEGIN
    UPDATE waiting SET items = items - 1, bytes = bytes - OLD.bytes;
END;
CREATE TRIGGER sources_wait_added AFTER INSERT ON sources BEGIN
    UPDATE waiting SET items = items + max(NEW.pending, 1), bytes = bytes + NEW.bytes;
    UPDATE jobs SET uploads = uploads + 1 WHERE id = NEW.job_id;
END;
CREATE TRIGGER sources_wait_changed AFTER UPDATE OF pending, bytes ON sources BEGIN
    UPDATE waiting
    SET items = items + max(NEW.pending, 1) - max(OLD.pending, 1), bytes = bytes + NEW.bytes - OLD.bytes;
END;
CREATE TRIGGER sources_wait_gone AFTER DELETE ON sources BEGIN
    UPDATE waiting SET items = items - max(OLD.pending, 1), bytes = bytes - OLD.bytes;
    UPDATE jobs SET uploads = uploads - 1 WHERE id = OLD.job_id;
END;

-- What requests that brought an `Idempotency-Key` were answered: `owner` is the API key that asked, '' where none is
-- needed, `request` a digest of what was asked. The last 10,000 are kept.
CREATE TABLE answers (
    n          INTEGER PRIMARY KEY AUTOINCREMENT,
    owner      TEXT NOT NULL,
    key        TEXT NOT NULL,
    request    TEXT NOT NULL,
    status     INTEGER NOT NULL,
    body       TEXT NOT NULL,
    bytes      INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (owner, key)
) STRICT;
CREATE INDEX answers_aged ON answers (created_at);
CREATE TRIGGER answers_forgotten AFTER INSERT ON answers BEGIN
    DELETE FROM answers WHERE n <= NEW.n - 10000;
END;
