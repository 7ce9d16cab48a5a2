"""The runs and jobs of an experiment, with their files and states."""
