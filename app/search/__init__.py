"""Indexes, queries, measured recall."""
