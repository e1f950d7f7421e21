"""Experiments behind decisions. Nothing runs them regularly; the pages that cite their figures name the command."""
