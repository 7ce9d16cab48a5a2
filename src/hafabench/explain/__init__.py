"""Where one number of a table comes from, and how to reproduce it: `hafabench explain`."""
