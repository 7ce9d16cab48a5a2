"""Checkpoints: how they are stored, loaded and translated from the layouts of other projects."""
