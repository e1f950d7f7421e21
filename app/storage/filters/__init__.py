"""Filters: their tree, the parser of their JSON, and their SQL."""
