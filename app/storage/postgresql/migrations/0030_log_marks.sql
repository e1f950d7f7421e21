-- As app/storage/migrations/0030_log_marks.sql.
CREATE TABLE log_marks (
    seq    BIGINT PRIMARY KEY,
    number BIGINT NOT NULL
);
INSERT INTO log_marks (seq, number) SELECT seq, (random() * 9e18)::bigint FROM embeddings ORDER BY seq DESC LIMIT 1;
