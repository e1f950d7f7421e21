-- Whether the camera data of a picture's bytes are read (app/storage/camera_data.py): what a person has changed since
-- then stays. Pictures that an older version embedded have 0.
ALTER TABLE images ADD COLUMN camera_read INTEGER NOT NULL DEFAULT 0;
