-- As app/storage/migrations/0029_moved_from.sql.
ALTER TABLE installation ADD COLUMN moved_from TEXT COLLATE "C";

-- The trigger that counts pictures reads the rows of a statement once, where it did three times: it is most of what a
-- claim costs.
CREATE TYPE image_change AS (
    collection TEXT, status TEXT, format TEXT, job_id TEXT, is_new BOOLEAN, n BIGINT, bytes BIGINT
);

CREATE OR REPLACE FUNCTION change_turn(job TEXT, change BIGINT) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    remaining BIGINT;
BEGIN
    IF change > 0 THEN
        INSERT INTO turns (job_id, turn, step, waiting, held)
        VALUES (coalesce(job, ''), coalesce((SELECT min(turn) FROM turns WHERE held = 0), 0),
                coalesce((SELECT step FROM jobs WHERE id = job), 1), change,
                coalesce((SELECT paused FROM jobs WHERE id = job), 0))
        ON CONFLICT (job_id) DO UPDATE SET waiting = turns.waiting + change;
    ELSE
        UPDATE turns SET waiting = waiting + change WHERE job_id = coalesce(job, '') RETURNING waiting INTO remaining;
        IF remaining <= 0 THEN
            DELETE FROM turns WHERE job_id = coalesce(job, '');
        END IF;
    END IF;
END
$$;

CREATE OR REPLACE FUNCTION images_counted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changes image_change[];
    change image_change;
    more_items BIGINT := 0;
    more_bytes BIGINT := 0;
    recounted TEXT[] := '{}';
BEGIN
    -- What there is more of comes first, so that no turn ends that goes on.
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(of_kind::image_change ORDER BY n DESC) INTO changes FROM (
            SELECT collection, status, format, job_id, status = 'queued' AND attempts = 0, count(*) AS n,
                sum(bytes)::bigint
            FROM new_rows GROUP BY 1, 2, 3, 4, 5
        ) AS of_kind;
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg(of_kind::image_change ORDER BY n DESC) INTO changes FROM (
            SELECT collection, status, format, job_id, status = 'queued' AND attempts = 0, -count(*) AS n,
                -sum(bytes)::bigint
            FROM old_rows GROUP BY 1, 2, 3, 4, 5
        ) AS of_kind;
    ELSE
        SELECT array_agg(of_kind::image_change ORDER BY n DESC) INTO changes FROM (
            SELECT collection, status, format, job_id, status = 'queued' AND attempts = 0, sum(sign)::bigint AS n,
                sum(sign * bytes)::bigint
            FROM (SELECT collection, status, format, job_id, attempts, bytes, 1 AS sign FROM new_rows
                UNION ALL SELECT collection, status, format, job_id, attempts, bytes, -1 FROM old_rows) AS rows
            GROUP BY 1, 2, 3, 4, 5 HAVING sum(sign) <> 0 OR sum(sign * bytes) <> 0
        ) AS of_kind;
    END IF;
    FOREACH change IN ARRAY coalesce(changes, '{}') LOOP
        IF change.status IN ('queued', 'processing') THEN
            more_items := more_items + change.n;
            more_bytes := more_bytes + change.bytes;
        END IF;
        CONTINUE WHEN change.n = 0;
        UPDATE image_counts SET n = image_counts.n + change.n
        WHERE collection = change.collection AND status = change.status AND format = change.format;
        IF NOT FOUND THEN
            recounted := recounted || change.collection;
        END IF;
        IF change.is_new THEN
            PERFORM change_turn(change.job_id, change.n);
        END IF;
    END LOOP;
    IF more_items <> 0 OR more_bytes <> 0 THEN
        UPDATE waiting SET items = items + more_items, bytes = bytes + more_bytes;
    END IF;
    IF recounted <> '{}' THEN
        DELETE FROM image_counts WHERE collection = ANY(recounted);
        INSERT INTO image_counts SELECT collection, status, format, count(*) FROM images
        WHERE collection = ANY(recounted) GROUP BY collection, status, format;
    END IF;
    RETURN NULL;
END
$$;
DROP FUNCTION add_to_count(TEXT, TEXT, TEXT, BIGINT);
