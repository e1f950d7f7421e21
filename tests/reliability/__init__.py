"""The proofs of what Sightline promises: `scripts/prove` runs them, `docs/reliability.md` says what they found.

Each module of `tests.reliability.proofs` proves one promise; its docstring says what is done and what counts as
failing.
"""
