"""Programs for developers, and what tests and benchmarks share."""
