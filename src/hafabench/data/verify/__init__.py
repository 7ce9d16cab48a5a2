"""The verification of a data set against its configuration.

`hafabench.data.verify.imagenet`, ``ade20k`` and ``coco`` check the names, annotations and masks of one data format
each. ``images`` decodes images, and ``findings`` collects all problems, so that a user sees them at once.
"""

from hafabench.data.verify.dataset import describe_missing_root, verify_dataset

__all__ = ["describe_missing_root", "verify_dataset"]
