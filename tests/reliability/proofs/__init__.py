"""One module for each promise, with its PROMISE and a `run(scale)` that tries to break it."""
