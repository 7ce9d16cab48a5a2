"""The gate: a candidate's records against a baseline's, metric by metric better, worse or cannot tell."""
