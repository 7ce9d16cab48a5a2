"""Semantic and instance segmentation: training and evaluation (mmsegmentation and mmdetection)."""
