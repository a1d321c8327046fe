"""Which videos a run was fitted and selected on, and which videos of a store are those: numbers on them flatter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...cache.fingerprint import canonical_json
from ...cache.interchange.arrays import Archive, texts
from ...cache.store import Store
from ...errors import ShardMissingError, StoreNotFoundError, UsageError
from ..fitting.holdout import hold_out
from ..metrics.classification import multi_hot
from ..placing import draws_segments
from .identity import FitIdentity, FusionEnvironment
from .run import VIDEOS, Run
from .splits import TRAIN

SAME_WITHIN = 0.05
"""Relative distance of one video's cubes as two devices, or two precisions, compute them; others are farther."""
_SAMPLED = 64
"""Videos whose cubes are compared first; the others follow only where these disagree."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SeenVideos:
    """The videos that a run was fitted and selected on, with what tells them from others of the same name.

    Raises
    ------
    UsageError
        If the arrays do not fit each other.
    """

    ids: tuple[str, ...]
    fitted: np.ndarray  # [n] bool; the others are those it was selected on (validation)
    facts: np.ndarray  # [n, 4] float64 of the file: decoded frames, frames per second, width, height; 0 = unknown
    dataset: str | None  # None: its store did not say

    def __post_init__(self) -> None:
        n = len(self.ids)
        if self.fitted.shape != (n,) or self.fitted.dtype != np.bool_:
            raise UsageError(f"`fitted` must be {n} booleans, and is {self.fitted.shape} {self.fitted.dtype}")
        if self.facts.shape != (n, 4) or self.facts.dtype != np.float64:
            raise UsageError(f"`facts` must be numbers [{n}, 4], and is {self.facts.shape} {self.facts.dtype}")

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return what `videos.npz` holds."""
        return {
            "ids": np.array([id.encode() for id in self.ids], np.bytes_),
            "fitted": self.fitted,
            "facts": self.facts,
            "dataset": np.array([] if self.dataset is None else [self.dataset], str),
        }

    @classmethod
    def read(cls, path: Path) -> SeenVideos:
        """Read `videos.npz`; raises UsageError if it is damaged."""
        with Archive(path) as archive:
            ids, dataset = (texts(archive.read(name), f"{path}: {name!r}") for name in ("ids", "dataset"))
            fitted, facts = archive.read("fitted"), archive.read("facts")
        try:
            return cls(
                ids=tuple(ids),
                fitted=fitted,
                facts=facts,
                dataset=dataset[0] if dataset else None,
            )
        except UsageError as error:
            raise UsageError(f"{path} is damaged: {error}; fit again with another --out.") from None


def ids_digest(ids: np.ndarray) -> str:
    """SHA-256 of a list of video ids: what a run keeps of its training and validation videos."""
    return hashlib.sha256("\n".join(map(str, ids)).encode()).hexdigest()


def seen_videos(
    store: Store, stream: str, *, train: np.ndarray, validation: np.ndarray, before: Sequence[SeenVideos] = ()
) -> SeenVideos:
    """Return what a fit keeps.

    Parameters
    ----------
    stream : whose ledger says what the files are
    train, validation : [n], [m] positions in the store
    before : what the runs have seen whose weights or representation the fit takes
    """
    positions = np.concatenate([train, validation])
    own = SeenVideos(
        ids=tuple(str(id) for id in store.index.ids[positions]),
        fitted=np.arange(len(positions)) < len(train),
        facts=_facts(store, stream)[positions],
        dataset=store.plan.dataset,
    )
    return together([own, *before]) if before else own


def together(parts: list[SeenVideos]) -> SeenVideos:
    """Return what any of several runs has seen; fitted on counts for more than selected on."""
    best: dict[str, tuple[bool, np.ndarray]] = {}
    for part in parts:
        for id, fitted, facts in zip(part.ids, part.fitted.tolist(), part.facts, strict=True):
            known = best.get(id)
            best[id] = (fitted or (known is not None and known[0]), facts if known is None else known[1])
    datasets = {part.dataset for part in parts}
    return SeenVideos(
        ids=tuple(best),
        fitted=np.array([fitted for fitted, _ in best.values()], bool),
        facts=np.array([facts for _, facts in best.values()], np.float64).reshape(-1, 4),
        dataset=datasets.pop() if len(datasets) == 1 else None,
    )


def _facts(store: Store, stream: str) -> np.ndarray:
    """[N, 4] of the videos of a store; see `SeenVideos`."""
    known = {
        outcome.id: (outcome.decoded_frames, outcome.fps, outcome.width, outcome.height)
        for outcome in store.stream(stream).outcomes()
    }
    return np.array([known.get(str(id), (0, 0, 0, 0)) for id in store.index.ids], np.float64)


def derive_lists(identity: FitIdentity, store: Store) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the positions in a store that a run was fitted and selected on, by the rule of its fit.

    None if they are not those of the run: of another store, or one that has changed.
    """
    index = store.index
    roles = index.splits.get(identity.split, np.zeros(len(index), np.int8))
    try:
        usable = store.usable(identity.stream_names, allow_truncated=identity.allow_truncated)
    except (ShardMissingError, UsageError):  # a stream, or a part of one, is not there
        return None
    videos = np.flatnonzero((roles == TRAIN) & usable & (index.labels >= 0).any(1))
    if not len(videos):
        return None
    hot = multi_hot(index.labels[videos], len(index.classes))
    held = hold_out(hot, index.groups[videos], share=identity.validation_share, seed=identity.seed)
    lists = videos[~held.validation], videos[held.validation]
    wanted = (identity.train.digest, identity.validation.digest)
    return lists if tuple(ids_digest(index.ids[part]) for part in lists) == wanted else None


def read_seen(run: Run, store: Store | None = None) -> SeenVideos | None:
    """Return the videos that a run has seen, None if nobody knows.

    Runs of version 0.1.0 keep the digests of their lists only: these are made again from the store of the fit.

    Parameters
    ----------
    store : another one that may be it

    Raises
    ------
    UsageError
        If the list is damaged.
    """
    if (run.path / VIDEOS).exists():
        seen = SeenVideos.read(run.verified(VIDEOS))
        if isinstance(run.identity, FitIdentity) and _alone(run.identity):
            ids, fitted = np.array(seen.ids, str), seen.fitted
            if ids_digest(ids[fitted]) != run.identity.train.digest:
                raise UsageError(f"{run.path / VIDEOS} is not the list of this run; fit again with another --out.")
        return seen
    if not isinstance(run.identity, FitIdentity) or isinstance(run.environment, FusionEnvironment):
        return None
    for candidate in (store, recorded(run)):
        if candidate is not None and (lists := derive_lists(run.identity, candidate)) is not None:
            return seen_videos(candidate, run.identity.stream_names[0], train=lists[0], validation=lists[1])
    return None


def _alone(identity: FitIdentity) -> bool:
    """Tell whether a fit took nothing of other runs, so that it has seen its own list alone."""
    sources = (identity.settings.config.get(key) for key in ("attention_from", "reference_from", "branches"))
    return not any((identity.on, identity.start, *sources))


def store_digest(store: Store) -> str:
    """SHA-256 of what a measure depends on besides the features: videos, labels, splits, truth, views, sampling."""
    plan = store.plan
    told = {
        "index": store.attributes["index_digest"],
        "views": [store.views, plan.view_rule],
        "sampling": [plan.sampler, plan.window_frames, *([plan.seed] if draws_segments(plan) else [])],
    }
    return hashlib.sha256(canonical_json(told).encode()).hexdigest()


def is_own(run: Run, store: Store) -> bool:
    """Tell whether a store is the one that a run was fitted on, as it was then, wherever it lies now."""
    environment = run.environment
    if isinstance(environment, FusionEnvironment) or not isinstance(run.identity, FitIdentity):
        return True  # a fusion has the results of its parts only, which are on their own stores
    if environment.store_digest is not None:
        return environment.store_digest == store_digest(store)
    there = recorded(run)  # of a run of version 0.1.0
    if there is None:
        return derive_lists(run.identity, store) is not None
    return store_digest(there) == store_digest(store)


def recorded(run: Run) -> Store | None:
    """Return the store that a run was fitted on, None if it is not where it was."""
    assert not isinstance(run.environment, FusionEnvironment)
    try:
        return Store.open(run.environment.store)
    except StoreNotFoundError:
        return None


def seen_in(run: Run, seen: SeenVideos, store: Store, videos: np.ndarray) -> np.ndarray:
    """Tell which videos of a store a run has seen.

    In the store of its fit ids say all. In another one a video is the same if its id is, unless something says that it
    is not: the frames, rate or size of its file, where both ledgers state them; its cubes, where the store of the fit
    is still at hand; and where neither is known, the name of the dataset. Copies by another name are not found.

    Parameters
    ----------
    videos : [n] positions in the store

    Returns
    -------
    [n] bool
    """
    row_of = {id: row for row, id in enumerate(seen.ids)}
    rows = np.array([row_of.get(str(id), -1) for id in store.index.ids[videos]], np.int64)
    same = rows >= 0
    if not same.any() or is_own(run, store):
        return same
    name = run.identity.stream_names[0]
    theirs, ours = _facts(store, name)[videos[same]], seen.facts[rows[same]]
    stated = (theirs > 0) & (ours > 0)
    differ = (stated & ~np.isclose(theirs, ours, rtol=1e-3)).any(1)
    places = np.flatnonzero(same)
    same[places[differ]] = False
    places, known = places[~differ], stated.any(1)[~differ]
    there = recorded(run)
    far = None if there is None or not is_own(run, there) else _far(there, store, name, videos[places])
    if far is not None:
        same[places[far]] = False
    elif None not in (seen.dataset, store.plan.dataset) and seen.dataset != store.plan.dataset:
        same[places[~known]] = False
    return same


def _far(fitted: Store, store: Store, stream: str, videos: np.ndarray) -> np.ndarray | None:
    """Tell which videos have other cubes in the store of the fit, [n] bool; None if they cannot be compared."""
    if stream not in fitted.stream_names or not len(videos):
        return None
    plans = [
        (
            plan.view_rule,
            plan.sampler,
            plan.seed if draws_segments(plan) or "train" in (plan.view_rule or "") else None,
        )
        for plan in (fitted.plan, store.plan)
    ]
    position = {str(id): place for place, id in enumerate(fitted.index.ids)}
    pairs = [(position.get(str(store.index.ids[video]), -1), int(video)) for video in videos]
    if plans[0] != plans[1] or any(a < 0 or fitted.index.length[a] != store.index.length[b] for a, b in pairs):
        return None
    readers = fitted.stream(stream).reader(), store.stream(stream).reader()

    def distance(a: int, b: int) -> float:
        one, other = (reader.read_video(n).astype(np.float64) for reader, n in zip(readers, (a, b), strict=True))
        return float(np.linalg.norm(one - other)) / max(float(np.linalg.norm(one)), 1e-12)

    try:
        step = max(1, len(pairs) // _SAMPLED)
        sampled = {distance(*pair) > SAME_WITHIN for pair in pairs[::step]}
        if len(sampled) == 1:
            return np.full(len(pairs), sampled.pop())
        return np.array([distance(*pair) > SAME_WITHIN for pair in pairs])
    except ShardMissingError:
        return None
