"""The origin of one number of a table, and the commands that reproduce it (`hafabench explain`)."""
