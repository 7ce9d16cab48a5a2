"""How numbers, durations and Markdown tables are written, for every page, message and report."""
