"""A stream: one modality and how it is made. Its configuration is its recipe, and its recipe is the cache key."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .flow.preset import find_preset
from .kinds import find_kind
from .views import CENTER, Geometry, Views
from .windows import FlowSettings, StreamInput, StreamKind

if TYPE_CHECKING:  # the supervisor of an extraction carries configurations about and is spared importing torch
    import torch

    from .extractor import StreamSetup


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """What the user chose for one stream; None means the backbone's own default.

    Raises
    ------
    UnknownNameError
        For an unknown stream or flow preset; `setup` checks the rest.
    """

    name: str  # of KINDS
    backbone: str
    layer: str | None = None
    weights: str = "default"
    preprocessing: str | None = None  # key of PREPROCESSINGS; None = what belongs to the weights
    resize: str | None = None
    crop_px: int | None = None
    pool: int | None = None  # side to which the backbone's grid is averaged
    precision: str = "auto"
    flow_preset: str = "tsn"
    flow_engine: str = "auto"
    flow_bound: float = 20.0
    flow_rescale: bool = False  # cross-modality conv1 times 3 / 20
    kind: StreamKind = field(init=False, repr=False)  # travels along: a worker's registry may not know it

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", find_kind(self.name))
        find_preset(self.flow_preset)

    def setup(self, device: torch.device | str, *, views: Views = CENTER, seed: int = 0) -> StreamSetup:
        """Build the backbone and write the recipe.

        Parameters
        ----------
        views : of the extraction, the same for all its streams
        seed : of random weights and random views

        Raises
        ------
        UsageError, WeightsError, UnknownNameError
        """
        from .backbones.registry import build_backbone
        from .extractor import StreamSetup
        from .flow.engines import choose_engine

        kind = self.kind
        backbone = build_backbone(
            self.backbone,
            kind=kind,
            layer=self.layer,
            weights=self.weights,
            preprocessing=self.preprocessing,
            precision=self.precision,
            crop_px=self.crop_px,
            seed=seed,
            device=device,
            flow_rescale=self.flow_rescale,
            flow_bound_px=self.flow_bound,
            pool=self.pool,
        )
        geometry = Geometry(resize=self.resize or backbone.resize, crop_px=backbone.crop_px)
        flow = FlowSettings()
        recipe: dict[str, Any] = {
            "stream": self.name,
            "window_frames": kind.window_frames,
            "decoder": "pyav, sequential, upright",
            "resize": geometry.resize,
            "interpolation": "bilinear, area below half",
            "crop_px": geometry.crop_px,
            **views.recipe(seed),
            **backbone.recipe,
            "dtype": "float16",
        }
        if kind.flow_fields:
            engine = choose_engine(self.flow_engine, device)
            flow = FlowSettings(preset=self.flow_preset, engine=engine, bound=self.flow_bound)
            recipe["flow"] = {
                "algorithm": "tvl1",
                **asdict(flow),
                "fields": kind.flow_fields,
                "order": "x0 y0 x1 y1 ...",
                "levels": "round(255 (clip(v) + bound) / (2 bound))",
            }
        stream = StreamInput(name=self.name, kind=kind, geometry=geometry, views=views, flow=flow, seed=seed)
        return StreamSetup(stream, backbone, recipe)
