"""Benchmarks of the project's performance goals; ``python -m benchmarks`` prints each with its measured value."""
