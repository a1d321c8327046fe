"""A stream: one modality and how it is made. Its configuration is its recipe, and its recipe is the cache key."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UnknownNameError
from .flow.preset import find_preset
from .views import Geometry, Views
from .windows import FIELDS, WINDOWS, FlowSettings, StreamInput

if TYPE_CHECKING:  # the supervisor of an extraction carries configurations about and is spared importing torch
    import torch

    from .extractor import StreamSetup


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What the user chose for one stream; None means the backbone's own default.

    Raises
    ------
    UnknownNameError
        For an unknown stream, flow preset, or views; `setup` checks the rest.
    """

    name: str  # rgb, flow or clip
    backbone: str
    layer: str | None = None
    weights: str = "default"
    preprocessing: str | None = None  # key of PREPROCESSINGS; None = what belongs to the weights
    resize: str | None = None
    crop_px: int | None = None
    pool: int | None = None  # side to which the backbone's grid is averaged
    views: str = "center"
    precision: str = "auto"
    seed: int = 0
    flow_preset: str = "tsn"
    flow_engine: str = "auto"
    flow_bound: float = 20.0
    flow_rescale: bool = False  # cross-modality conv1 times 3 / 20

    def __post_init__(self) -> None:
        if self.name not in WINDOWS:
            raise UnknownNameError("stream", self.name, WINDOWS)
        Views.parse(self.views)
        find_preset(self.flow_preset)

    @property
    def window_frames(self) -> int:
        """Frames of one segment."""
        return WINDOWS[self.name]

    def setup(self, device: torch.device | str) -> StreamSetup:
        """Build the backbone and write the recipe.

        Raises
        ------
        UsageError, WeightsError, UnknownNameError
        """
        from .backbones.registry import build_backbone
        from .extractor import StreamSetup
        from .flow.engines import choose_engine

        backbone = build_backbone(
            self.backbone,
            kind=self.name,
            layer=self.layer,
            weights=self.weights,
            preprocessing=self.preprocessing,
            precision=self.precision,
            crop_px=self.crop_px,
            seed=self.seed,
            device=device,
            flow_rescale=self.flow_rescale,
            flow_bound_px=self.flow_bound,
            pool=self.pool,
        )
        geometry = Geometry(resize=self.resize or backbone.resize, crop_px=backbone.crop_px)
        flow = FlowSettings()
        recipe: dict[str, Any] = {
            "stream": self.name,
            "window_frames": self.window_frames,
            "decoder": "pyav, sequential, upright",
            "resize": geometry.resize,
            "interpolation": "bilinear, area below half",
            "crop_px": geometry.crop_px,
            "views": self.views,
            **backbone.recipe,
            "dtype": "float16",
        }
        if self.name == "flow":
            engine = choose_engine(self.flow_engine, device)
            flow = FlowSettings(preset=self.flow_preset, engine=engine, bound=self.flow_bound)
            recipe["flow"] = {
                "algorithm": "tvl1",
                **asdict(flow),
                "fields": FIELDS,
                "order": "x0 y0 x1 y1 ...",
                "levels": "round(255 (clip(v) + bound) / (2 bound))",
            }
        if self.views.startswith("train"):
            recipe["view_seed"] = self.seed
        stream = StreamInput(
            name=self.name,
            kind=self.name,
            geometry=geometry,
            views=Views.parse(self.views),
            flow=flow,
            seed=self.seed,
        )
        return StreamSetup(stream, backbone, recipe)
