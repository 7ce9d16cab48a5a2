"""Records, and the files that are stored beside them: histories, predictions and counts."""
