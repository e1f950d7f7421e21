"""Filters: the model, the parser of their JSON, and their SQL."""
