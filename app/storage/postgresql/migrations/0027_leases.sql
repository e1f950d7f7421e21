-- As app/storage/migrations/0027_leases.sql.
ALTER TABLE jobs ADD COLUMN runner TEXT COLLATE "C";
ALTER TABLE enrichments ADD COLUMN lease_until DOUBLE PRECISION;
ALTER TABLE watches ADD COLUMN scan_asked BIGINT NOT NULL DEFAULT 0;

-- The clock of leases: all machines ask the same one.
CREATE FUNCTION lease_clock() RETURNS double precision
LANGUAGE sql VOLATILE AS 'SELECT extract(epoch FROM clock_timestamp())::double precision';
