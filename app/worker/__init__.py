"""The processes that import uploads and embed pictures."""
