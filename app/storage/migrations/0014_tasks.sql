-- A job that is no import is a task of the server: `parameters` (JSON) say what to do, `result` (JSON) is what came of it.
-- A job that failed as a whole has an `error` (JSON, {code, detail}).
ALTER TABLE jobs ADD COLUMN parameters TEXT;
ALTER TABLE jobs ADD COLUMN result TEXT;
ALTER TABLE jobs ADD COLUMN error TEXT;
CREATE INDEX jobs_tasks ON jobs (state) WHERE parameters IS NOT NULL;
