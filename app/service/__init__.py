"""One data directory, served: construction, start, stop, health, maintenance, authentication."""
