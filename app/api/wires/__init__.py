"""Calls of other services' clients, in the shapes that these clients know."""
