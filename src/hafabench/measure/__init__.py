"""Measurements that need no training: parameters, multiply-accumulates and latency (docs/measurement.md)."""
