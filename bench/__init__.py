"""Measurements of the whole service over HTTP; `scripts/bench` prints them all."""
