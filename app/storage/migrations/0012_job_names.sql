-- The name of the archive, or of the folder or bucket, that a job imports; NULL for loose files.
ALTER TABLE jobs ADD COLUMN name TEXT;
