"""Numbers that depend on no training: parameters and multiply-accumulates, and latency (docs/measurement.md)."""
