-- Rows hold a label: the name of a collection, and of one made later a number besides. A collection that was dropped
-- has lost its name at once; its rows are swept away after that, while another may have the name already.
-- `swept` is 1 when only its jobs remember it.
ALTER TABLE collections RENAME COLUMN name TO label;
ALTER TABLE collections ADD COLUMN name TEXT;
ALTER TABLE collections ADD COLUMN swept INTEGER NOT NULL DEFAULT 0;
UPDATE collections SET name = label;
CREATE UNIQUE INDEX collections_named ON collections (name);
CREATE INDEX collections_going ON collections (label) WHERE name IS NULL AND swept = 0;
