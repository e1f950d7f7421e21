-- What a job left out: `left_out` is how many files of each kind, `warnings` what is to say about single places (JSON).
-- `warned` is how many of its items came in with warnings.
ALTER TABLE jobs ADD COLUMN left_out TEXT NOT NULL DEFAULT '{}';
ALTER TABLE jobs ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]';
ALTER TABLE jobs ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;

-- `warnings` of an item: what was cut, left out or filled. `retry` of a failed item whose bytes never came: its source and
-- its line of the manifest, by which a worker can bring them (JSON).
ALTER TABLE job_items ADD COLUMN warnings TEXT;
ALTER TABLE job_items ADD COLUMN retry TEXT;
CREATE INDEX job_items_warned ON job_items (job_id, n) WHERE warnings IS NOT NULL;
CREATE INDEX job_items_lost ON job_items (job_id, n) WHERE retry IS NOT NULL;
