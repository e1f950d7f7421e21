"""Untrusted pictures and archives, read in child processes that can be killed."""
