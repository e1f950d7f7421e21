"""Figures behind decisions: run once, kept so that they can be run again."""
