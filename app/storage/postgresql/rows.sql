-- What an empty database holds.

INSERT INTO collections (label, name, created_at)
VALUES ('default', 'default', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
INSERT INTO access (version) VALUES (0);
INSERT INTO waiting (items, bytes) VALUES (0, 0);
