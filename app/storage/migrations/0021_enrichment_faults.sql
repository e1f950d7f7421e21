-- Why the process of a kind waits, in words for people; NULL while it works.
ALTER TABLE enrichment_kinds ADD COLUMN fault TEXT;
