"""What is promised of this project's speed, measured: ``python -m benchmarks`` prints every goal with its figure."""
