"""One module for each table, or for one set of operations on a few tables: functions that take a connection."""
