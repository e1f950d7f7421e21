-- As app/storage/migrations/0029_moved_from.sql.
ALTER TABLE installation ADD COLUMN moved_from TEXT COLLATE "C";
