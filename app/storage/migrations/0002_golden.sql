-- What the model of a space made of fixed inputs when the space was first used: float32 [n, d], little endian.
ALTER TABLE spaces ADD COLUMN golden BLOB;
