"""The database of several machines: PostgreSQL, under the statements and rules that SQLite has."""
