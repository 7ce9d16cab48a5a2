"""Pictures of what trained models do: SIA's clusters, segmentations, LAA's sampling points, on images of the data."""
