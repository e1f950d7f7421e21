-- The clock by which leases end; that of SQLite is the monotonic clock of the machine.
CREATE FUNCTION lease_clock() RETURNS double precision
LANGUAGE sql VOLATILE PARALLEL SAFE AS 'SELECT extract(epoch FROM clock_timestamp())::double precision';

ALTER TABLE jobs ADD COLUMN runner TEXT COLLATE "C";
ALTER TABLE enrichments ADD COLUMN lease_until DOUBLE PRECISION;
ALTER TABLE watches ADD COLUMN scan_asked BIGINT NOT NULL DEFAULT 0;
