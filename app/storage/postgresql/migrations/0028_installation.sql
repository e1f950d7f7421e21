-- As app/storage/migrations/0028_installation.sql.
CREATE TABLE installation (id TEXT COLLATE "C" PRIMARY KEY, media TEXT COLLATE "C" NOT NULL);
