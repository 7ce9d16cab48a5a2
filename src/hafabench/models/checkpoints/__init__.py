"""Checkpoints: how they are stored, loaded and translated from the names that other projects use."""
