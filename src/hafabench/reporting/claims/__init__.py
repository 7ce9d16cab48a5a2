"""The claims ledger: every figure and difference that the paper prints, and what this experiment says of it."""
