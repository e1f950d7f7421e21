-- A random number for each change of the log `embeddings`, under the number of its last entry. By it whoever has followed
-- the log knows that it is still the same: a database that has lost its end gives the same numbers again. A row of the
-- log goes when another replaces it; these stay.
CREATE TABLE log_marks (
    seq    INTEGER PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT;
INSERT INTO log_marks (seq, number) SELECT seq, random() FROM embeddings ORDER BY seq DESC LIMIT 1;
