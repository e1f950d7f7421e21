-- The short name (`photos`) by which --model named the model of a space: it means that model here from then on.
ALTER TABLE spaces ADD COLUMN chosen_as TEXT;
-- Whether the model read only the beginning of a text; NULL if nobody has looked.
ALTER TABLE texts ADD COLUMN truncated INTEGER;
