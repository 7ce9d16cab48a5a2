"""The report of an experiment as one HTML file that loads nothing from the network or from other files."""
