"""Pictures of trained models on validation images: SIA's clusters, segmentations, and LAA's sampling points."""
