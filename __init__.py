"""Extract video features once, train many attention heads on them.

Stage one (`vidatt extract`) runs frozen backbones over all videos of a dataset and keeps conv5/pool5 feature cubes in
a Zarr store. Stage two (`vidatt fit-head`) trains attention heads directly on the cached cubes.

From Python, what people use is here by name (`dir(vidatt)`, docs/python.md) and imported at its first use: importing
vidatt itself costs nothing. The extraction is `extract_features`, for `vidatt.extract` is the room of that name.
"""

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .cache.batches import Batch, Batches
    from .cache.store import Store
    from .cache.stream import Stream
    from .cache.video_cubes import VideoCubes
    from .errors import VidattError
    from .extract.backbones.registry import build_backbone
    from .extract.datasets.catalogue import Catalogue, Video
    from .extract.datasets.dataset import Dataset, DatasetInfo
    from .extract.datasets.registry import register as register_dataset
    from .extract.streams import StreamConfig
    from .heads.contract import Head, HeadConfig, HeadOutput, StreamShape
    from .heads.registry import HeadEntry, build_head
    from .heads.registry import register as register_head
    from .pipelines.extraction.config import ExtractConfig
    from .pipelines.extraction.extract import extract as extract_features
    from .pipelines.fitting.fit import fit
    from .pipelines.fitting.plan import FitConfig
    from .pipelines.prediction.predictor import Prediction, Predictor, load_predictor
    from .pipelines.results.evaluate import evaluate
    from .pipelines.runs.attention import VideoAttention, attention
    from .pipelines.runs.loaded import LoadedRun, load_run
    from .pipelines.runs.reload import load_head

__all__ = [
    "Batch",
    "Batches",
    "Catalogue",
    "Dataset",
    "DatasetInfo",
    "ExtractConfig",
    "FitConfig",
    "Head",
    "HeadConfig",
    "HeadEntry",
    "HeadOutput",
    "LoadedRun",
    "Prediction",
    "Predictor",
    "Store",
    "Stream",
    "StreamConfig",
    "StreamShape",
    "VidattError",
    "Video",
    "VideoAttention",
    "VideoCubes",
    "__version__",
    "attention",
    "build_backbone",
    "build_head",
    "evaluate",
    "extract_features",
    "fit",
    "load_head",
    "load_predictor",
    "load_run",
    "register_dataset",
    "register_head",
]

_PLACES = {
    "Batch": "cache.batches:Batch",
    "Batches": "cache.batches:Batches",
    "Catalogue": "extract.datasets.catalogue:Catalogue",
    "Dataset": "extract.datasets.dataset:Dataset",
    "DatasetInfo": "extract.datasets.dataset:DatasetInfo",
    "ExtractConfig": "pipelines.extraction.config:ExtractConfig",
    "FitConfig": "pipelines.fitting.plan:FitConfig",
    "Head": "heads.contract:Head",
    "HeadConfig": "heads.contract:HeadConfig",
    "HeadEntry": "heads.registry:HeadEntry",
    "HeadOutput": "heads.contract:HeadOutput",
    "LoadedRun": "pipelines.runs.loaded:LoadedRun",
    "Prediction": "pipelines.prediction.predictor:Prediction",
    "Predictor": "pipelines.prediction.predictor:Predictor",
    "Store": "cache.store:Store",
    "Stream": "cache.stream:Stream",
    "StreamConfig": "extract.streams:StreamConfig",
    "StreamShape": "heads.contract:StreamShape",
    "VidattError": "errors:VidattError",
    "Video": "extract.datasets.catalogue:Video",
    "VideoAttention": "pipelines.runs.attention:VideoAttention",
    "VideoCubes": "cache.video_cubes:VideoCubes",
    "attention": "pipelines.runs.attention:attention",
    "build_backbone": "extract.backbones.registry:build_backbone",
    "build_head": "heads.registry:build_head",
    "evaluate": "pipelines.results.evaluate:evaluate",
    "extract_features": "pipelines.extraction.extract:extract",
    "fit": "pipelines.fitting.fit:fit",
    "load_head": "pipelines.runs.reload:load_head",
    "load_predictor": "pipelines.prediction.predictor:load_predictor",
    "load_run": "pipelines.runs.loaded:load_run",
    "register_dataset": "extract.datasets.registry:register",
    "register_head": "heads.registry:register",
}
"""Where each name lives; type checkers see the imports above, and a test compares the two."""


if not TYPE_CHECKING:  # to a type checker it would mean that every name is here

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module, _, attribute = _PLACES[name].partition(":")
        value = globals()[name] = getattr(import_module(f".{module}", __name__), attribute)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
