"""One module for each table, or each set of operations on a few: functions that take a connection."""
