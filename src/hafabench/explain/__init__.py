"""Where one number of a table comes from, and what makes it again: `hafabench explain`."""
