"""Wires: the calls of other systems, so that their clients need another URL and nothing else.

Each dialect has a module of its own with the body it reads, the answer and the errors that it writes; no dialect knows
another. What they have in common is in `dialect`, the work in `app.service.embeddings`.
"""
