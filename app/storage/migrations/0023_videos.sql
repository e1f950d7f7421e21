-- Videos whose frames are pictures (`images.video_id`, `t_ms`). `sha256` is that of the file and the id of the video;
-- with `kept` the file lies among those of the pictures. `complete`: all frames that were chosen have been imported.
CREATE TABLE videos (
    key INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    source TEXT,
    format TEXT NOT NULL,
    codec TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL,
    taken_at TEXT,
    taken_offset INTEGER,
    created_at TEXT NOT NULL,
    job_id TEXT,
    kept INTEGER NOT NULL,
    complete INTEGER NOT NULL DEFAULT 0,
    UNIQUE (collection, sha256)
);
CREATE INDEX videos_files ON videos (sha256) WHERE kept = 1;
