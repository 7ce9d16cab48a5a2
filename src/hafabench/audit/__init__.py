"""The audit of an experiment: every link of the chain from its file to its reported numbers."""
