"""The runs and jobs of an experiment: what they are, where their files are and what state they are in."""
