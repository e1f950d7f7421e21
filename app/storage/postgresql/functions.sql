-- What SQLite has and PostgreSQL has not, under SQLite's names, so that one statement serves both. A value of JSON is
-- jsonb here; `type` has SQLite's names of types.

CREATE FUNCTION iif(condition boolean, yes anycompatible, no anycompatible) RETURNS anycompatible
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT CASE WHEN condition THEN yes ELSE no END';

CREATE FUNCTION max(a bigint, b bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT CASE WHEN a > b THEN a WHEN b IS NOT NULL THEN b END';

CREATE FUNCTION min(a double precision, b double precision) RETURNS double precision
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT CASE WHEN a < b THEN a WHEN a IS NOT NULL THEN b END';

CREATE FUNCTION instr(whole text, part text) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT strpos(whole, part)';

CREATE FUNCTION substr(whole text, first bigint, count bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT substr(whole, first::integer, count::integer)';

CREATE FUNCTION length(atom jsonb) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$SELECT length(atom #>> '{}')$$;

-- A character that JSON writes as \u0000 cannot be in a text of PostgreSQL.
CREATE FUNCTION json_of(document text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$SELECT replace(document, '\u0000', '')::jsonb$$;

-- Of a path as `$."a"."b"`.
CREATE FUNCTION json_steps(path text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$SELECT CASE WHEN path = '$' THEN '{}' ELSE string_to_array(substr(path, 4, length(path) - 4), '"."') END$$;

CREATE FUNCTION json_type(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT CASE jsonb_typeof(value)
    WHEN 'string' THEN 'text'
    WHEN 'number' THEN CASE WHEN value::text ~ '[.e]' THEN 'real' ELSE 'integer' END
    WHEN 'boolean' THEN value::text
    ELSE jsonb_typeof(value) END
$$;

CREATE FUNCTION json_type(document text, path text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT json_type(json_of(document) #> json_steps(path))';

CREATE FUNCTION json_extract(document text, path text) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT json_of(document) #> json_steps(path)';

CREATE FUNCTION json_quote(value jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT value::text';

CREATE FUNCTION typeof(key jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$SELECT coalesce(json_type(key), 'null')$$;

CREATE FUNCTION json_each(document text, path text) RETURNS TABLE (key jsonb, value jsonb, type text, atom jsonb)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE whole jsonb := json_of(document) #> json_steps(path);
BEGIN
    IF jsonb_typeof(whole) = 'array' THEN
        RETURN QUERY SELECT to_jsonb(n - 1), one, json_type(one),
            CASE WHEN jsonb_typeof(one) NOT IN ('array', 'object', 'null') THEN one END
        FROM jsonb_array_elements(whole) WITH ORDINALITY AS of_array (one, n);
    ELSIF jsonb_typeof(whole) = 'object' THEN
        RETURN QUERY SELECT to_jsonb(name), one, json_type(one),
            CASE WHEN jsonb_typeof(one) NOT IN ('array', 'object', 'null') THEN one END
        FROM jsonb_each(whole) AS of_object (name, one);
    ELSIF whole IS NOT NULL THEN
        RETURN QUERY SELECT NULL::jsonb, whole, json_type(whole), CASE WHEN jsonb_typeof(whole) <> 'null' THEN whole END;
    END IF;
END
$$;

CREATE FUNCTION json_each(document text) RETURNS TABLE (key jsonb, value jsonb, type text, atom jsonb)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$SELECT * FROM json_each(document, '$')$$;

-- The value at a path as a text that sorts as the value does among those of its type (texts by their first `most`
-- characters); NULL for a list or an object. The statement for SQLite needs the path three times.
CREATE FUNCTION json_sortable(document text, path text, same text, most bigint, again text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    found jsonb := json_of(document) #> json_steps(path);
    bits bytea;
BEGIN
    CASE jsonb_typeof(found)
    WHEN 'string' THEN
        RETURN substr(found #>> '{}', 1, most);
    WHEN 'number' THEN
        bits := float8send((found #>> '{}')::double precision + 0.0);
        IF get_byte(bits, 0) < 128 THEN
            bits := set_byte(bits, 0, get_byte(bits, 0) + 128);
        ELSE
            FOR n IN 0..7 LOOP bits := set_byte(bits, n, 255 - get_byte(bits, n)); END LOOP;
        END IF;
        RETURN encode(bits, 'hex');
    WHEN 'boolean' THEN
        RETURN found::text;
    ELSE
        RETURN NULL;
    END CASE;
END
$$;

-- Whether a value is a date, or seconds or milliseconds since 1970: DATED in app/storage/filters/sql.py.
CREATE FUNCTION json_is_dated(type text, atom jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT coalesce(CASE
    WHEN type = 'text' THEN atom #>> '{}' ~ '^(\d{4}[-:/]\d\d[-:/]\d\d.*|1\d{9}|1\d{12})$'
    WHEN type IN ('integer', 'real') THEN (atom #>> '{}')::numeric >= 1e8 AND (atom #>> '{}')::numeric < 1e14
    END, false)
$$;

-- The day number of a time; NULL for none. What SQLite's `julianday` takes, and no more.
CREATE FUNCTION julianday(written text) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    part text[] := regexp_match(written,
        '^(\d{4})-(\d\d)-(\d\d)(?:[ T]+(\d\d):(\d\d)(?::(\d\d(?:\.\d+)?))?\s*(Z|[+-]\d\d:\d\d)?)?\s*$');
    days double precision;
BEGIN
    IF part IS NULL OR part[2]::int NOT BETWEEN 1 AND 12 OR part[3]::int NOT BETWEEN 1 AND 31
        OR coalesce(part[4]::int, 0) > 24 OR coalesce(part[5]::int, 0) > 59 OR coalesce(part[6]::double precision, 0) >= 60
    THEN
        RETURN NULL;
    END IF;
    days := (make_date(part[1]::int, part[2]::int, 1) - DATE '2000-01-01') + part[3]::int - 1 + 2451544.5;
    days := days + (coalesce(part[4]::int, 0) * 3600 + coalesce(part[5]::int, 0) * 60
        + coalesce(part[6]::double precision, 0)) / 86400.0;
    IF part[7] LIKE '_%:%' THEN
        days := days - (substr(part[7], 1, 1) || '1')::int
            * (substr(part[7], 2, 2)::int * 60 + substr(part[7], 5, 2)::int) / 1440.0;
    END IF;
    RETURN days;
EXCEPTION WHEN datetime_field_overflow OR invalid_datetime_format THEN
    RETURN NULL;
END
$$;

-- The day number of a time, also as cameras and programs write it: DAY_NUMBER in app/storage/filters/sql.py.
CREATE FUNCTION json_moment(type text, atom jsonb) RETURNS double precision
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    written text := atom #>> '{}';
    seconds double precision;
    rest text;
BEGIN
    IF type IS NULL OR type NOT IN ('text', 'integer', 'real') THEN
        RETURN NULL;
    END IF;
    IF type <> 'text' OR written !~ '^.{4}[^0-9]' THEN
        seconds := substring(written FROM '^-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?')::double precision;
        RETURN 2440587.5 + CASE WHEN seconds < 1e11 THEN seconds ELSE seconds / 1e3 END / 86400.0;
    END IF;
    rest := substr(written, 11);
    IF written ~ '^.{10}.*[+-]\d{4}$' THEN
        rest := left(rest, -2) || ':' || right(rest, 2);
    ELSE
        rest := replace(rest, ' UTC', 'Z');
    END IF;
    RETURN julianday(substr(written, 1, 4) || '-' || substr(written, 6, 2) || '-' || substr(written, 9, 2) || rest);
END
$$;

-- The time in UTC of a picture whose camera tells its offset: UTC_OF_TAKEN in app/storage/filters/sql.py.
CREATE FUNCTION utc_of_taken(taken_at text, taken_offset bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT to_char(taken_at::timestamp - taken_offset * INTERVAL '1 minute', 'YYYY-MM-DD"T"HH24:MI:SS.MS')
$$;

-- The distinct words of a text as app/core/text.py splits it (UAX #29), near enough: ICU knows letters and cases.
CREATE FUNCTION split_words(whole text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
SELECT coalesce(array_agg(DISTINCT found[1]), '{}') FROM regexp_matches(
    lower(replace(normalize(whole, NFKC), '_', ' ') COLLATE "und-x-icu"),
    '([\u3041-\u3096\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|'
    '(?:(?![\u3041-\u3096\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])[[:alnum:]])+'
    '(?:[.''’:·,;](?:(?![\u3041-\u3096\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])[[:alnum:]])+)*)', 'g') AS found
$$;

CREATE FUNCTION has_words(whole text, wanted text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT split_words(whole) @> split_words(wanted)';

CREATE FUNCTION has_words(atom jsonb, wanted text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$SELECT has_words(atom #>> '{}', wanted)$$;
