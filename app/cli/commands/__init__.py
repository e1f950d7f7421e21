"""The commands of `sightline`: their options, and the function that each of them calls."""
