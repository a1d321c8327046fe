"""Extract video features once, train many attention heads on them.

Stage one (`vidatt extract`) runs frozen backbones over all videos of a dataset and keeps conv5/pool5 feature cubes in
a Zarr store. Stage two (`vidatt fit-head`) trains attention heads directly on the cached cubes.
"""

from .version import __version__ as __version__
