"""Extract video features once, train many attention heads on them.

Stage one (`vidatt extract`) runs frozen backbones over all videos of a dataset and keeps conv5/pool5 feature cubes in
a Zarr store. Stage two (`vidatt fit-head`) trains attention heads directly on the cached cubes.
"""

__version__ = "0.1.0"
