"""The claims of the paper and the verdicts of an experiment on them."""
