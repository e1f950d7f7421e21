"""The truth on disk: database, picture files, jobs, filters, backup."""
