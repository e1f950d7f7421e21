-- What `sightline move` has brought into this database: its source, and what it had then (JSON).
ALTER TABLE installation ADD COLUMN moved_from TEXT;
