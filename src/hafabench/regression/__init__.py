"""The regression gate, which compares a candidate's records with a baseline's, metric by metric."""
