"""What every package may use: settings, errors, types, logging, metrics, locks. Knows nothing of pictures."""
