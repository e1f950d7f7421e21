-- Who runs a task: a name for this run alone. A server that was stopped while another one began the task anew has no part
-- in what comes of it.
ALTER TABLE jobs ADD COLUMN runner TEXT;
-- When the process of a second pass loses a picture, by `lease_clock()`. NULL: it loses it when its process ends.
ALTER TABLE enrichments ADD COLUMN lease_until REAL;
-- Whether somebody asked for a scan of a watched folder at a server that does not read it.
ALTER TABLE watches ADD COLUMN scan_asked INTEGER NOT NULL DEFAULT 0;
