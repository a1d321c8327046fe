"""Hand-made descriptors against plain computations from their definitions, and on motions that are known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from vidatt.errors import UsageError
from vidatt.extract.backbones.hof import Hof
from vidatt.extract.backbones.hog import Hog
from vidatt.extract.backbones.hog3d import Hog3d, icosahedron_axes
from vidatt.extract.datasets.scenes import make_scene
from vidatt.extract.datasets.shapes import ShapesOptions
from vidatt.extract.flow.levels import quantise


def _bytes(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _plain_blocks(cells: np.ndarray) -> np.ndarray:
    """(14, 14, N) histograms -> (7, 7, 4N), block by block."""
    cube = np.zeros((7, 7, 4 * cells.shape[2]))
    for i in range(7):
        for j in range(7):
            block = cells[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel()
            block = np.minimum(block / math.sqrt((block**2).sum() + 1e-4), 0.2)
            cube[i, j] = block / math.sqrt((block**2).sum() + 1e-4)
    return cube


def _cube(output: torch.Tensor) -> np.ndarray:
    return output[0].permute(1, 2, 0).numpy()


class TestHog:
    """Dalal and Triggs' definition."""

    def test_equals_a_plain_computation(self) -> None:
        frames = _bytes(1, 28, 28, 3)
        assert np.allclose(_cube(Hog()(frames)), _plain_hog(frames[0].permute(2, 0, 1).numpy() / 255), atol=1e-5)

    @pytest.mark.parametrize("degrees", [0, 20, 90, 130])
    def test_an_edge_votes_for_its_own_orientation(self, degrees: int) -> None:
        angle = math.radians(degrees)
        y, x = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
        ramp = ((x * math.cos(angle) + y * math.sin(angle)) / 500).clamp(-1, 1)
        cube = Hog().describe(ramp.expand(1, 3, 112, 112))[0].view(4, 9, 7, 7)[:, :, 3, 3].sum(0)
        assert abs((cube.argmax().item() * 20 + 10) - degrees % 180) <= 10

    def test_flat_frames_are_zero_and_colour_counts(self) -> None:
        assert not Hog()(torch.full((1, 112, 112, 3), 128, dtype=torch.uint8)).any()
        red = torch.zeros(1, 112, 112, 3, dtype=torch.uint8)
        red[:, :, 56:, 0] = 255
        assert Hog()(red).any()


def _plain_hog(frame: np.ndarray) -> np.ndarray:
    _, S, _ = frame.shape
    padded = np.pad(frame, ((0, 0), (1, 1), (1, 1)), mode="edge")
    side = S // 14
    cells = np.zeros((14, 14, 9))
    for y in range(S):
        for x in range(S):
            dx = padded[:, y + 1, x + 2] - padded[:, y + 1, x]
            dy = padded[:, y + 2, x + 1] - padded[:, y, x + 1]
            c = int(np.argmax(dx**2 + dy**2))
            place = math.atan2(dy[c], dx[c]) / math.pi % 1.0 * 9 - 0.5
            low = math.floor(place)
            votes = math.hypot(dx[c], dy[c]) / side**2
            cells[y // side, x // side, low % 9] += votes * (1 - (place - low))
            cells[y // side, x // side, (low + 1) % 9] += votes * (place - low)
    return _plain_blocks(cells)


def _still(vx: float, vy: float, side: int = 112) -> torch.Tensor:
    """A stack of ten equal fields, quantised: (1, S, S, 20) uint8."""
    return torch.from_numpy(quantise(np.full((1, side, side, 20), [vx, vy] * 10, np.float32)))


class TestHof:
    """Votes of flow vectors."""

    def test_equals_a_plain_computation(self) -> None:
        stack = _bytes(1, 28, 28, 20)
        stack[:, :10] = stack[:, :10] // 32 + 124  # short vectors, some of them still
        cells = np.zeros((14, 14, 2, 9))
        for y, x, field in np.ndindex(28, 28, 10):
            vx, vy = stack[0, y, x, 2 * field : 2 * field + 2].numpy() / 255 * 40 - 20
            votes = np.zeros(9)
            if math.hypot(vx, vy) < 1:
                votes[8] = 1
            else:
                place = math.degrees(math.atan2(vy, vx)) % 360 / 45
                low = math.floor(place)
                votes[low % 8] += math.hypot(vx, vy) * (1 - (place - low))
                votes[(low + 1) % 8] += math.hypot(vx, vy) * (place - low)
            cells[y // 2, x // 2, field // 5] += votes / (4 * 5)
        assert np.allclose(_cube(Hof()(stack)), _plain_blocks(cells.reshape(14, 14, 18)), atol=1e-5)

    @pytest.mark.parametrize(
        ("velocity", "strongest"),
        [((3, 0), 0), ((3, 3), 1), ((0, 3), 2), ((-3, 0), 4), ((0, -3), 6), ((2, -2), 7), ((0.5, 0.5), 8), ((0, 0), 8)],
    )
    def test_motion_votes_for_its_own_direction(self, velocity: tuple[float, float], strongest: int) -> None:
        histograms = Hof()(_still(*velocity)).view(4, 2, 9, 7, 7)
        assert (histograms.argmax(2) == strongest).all()

    def test_a_mirrored_stack_mirrors_cells_and_directions(self) -> None:
        stack = _bytes(1, 112, 112, 20)
        mirrored = stack.flip(2)
        mirrored[..., ::2] = 255 - mirrored[..., ::2]
        ours, other = (Hof()(s).view(2, 2, 2, 9, 7, 7) for s in (stack, mirrored))  # part row, part column, half, bin
        expected = ours.flip(1).flip(5)[:, :, :, [4, 3, 2, 1, 0, 7, 6, 5, 8]]
        assert torch.allclose(other, expected, atol=1e-4)

    def test_halves_of_the_stack_are_kept_apart(self) -> None:
        stack = torch.cat([_still(3, 0)[..., :10], _still(0, 3)[..., :10]], dim=-1)
        histograms = Hof()(stack).view(4, 2, 9, 7, 7)
        assert (histograms[:, 0].argmax(1) == 0).all()
        assert (histograms[:, 1].argmax(1) == 2).all()

    def test_bound_scales_velocities(self) -> None:
        stack = torch.cat([_still(3, 0)[..., :10], _still(0.9, 0)[..., :10]], dim=-1)  # bound 20
        assert (Hof(bound_px=40)(stack).view(4, 2, 9, 49)[:, 1].argmax(1) == 0).all()  # 1.8 pixels: no longer still
        assert (Hof()(stack).view(4, 2, 9, 49)[:, 1].argmax(1) == 8).all()

    def test_odd_stacks_are_refused(self) -> None:
        with pytest.raises(UsageError, match="halves the stack in time: 18 channels"):
            Hof()(torch.zeros(1, 28, 28, 18, dtype=torch.uint8))


def _moving(step_px: float, *, side: int = 112, frames: int = 16) -> torch.Tensor:
    """A smooth texture that moves right by `step_px` a frame: (1, T, S, S, 3) uint8."""
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.standard_normal((side, side + 400)).astype(np.float32), (0, 0), 6)
    wide = np.clip(128 + 60 * wide / wide.std(), 0, 255)
    clip = [wide[:, 200 - round(step_px * t) : 200 - round(step_px * t) + side] for t in range(frames)]
    return torch.from_numpy(np.stack(clip).astype(np.uint8))[None, ..., None].expand(-1, -1, -1, -1, 3).contiguous()


class TestHog3d:
    """Space-time gradients on an icosahedron's axes."""

    def test_equals_a_plain_computation(self) -> None:
        clips = _bytes(1, 4, 28, 28, 3)
        grey = clips[0].numpy() @ np.array([0.299, 0.587, 0.114]) / 255  # sub-blocks of one pixel
        padded = np.pad(grey, 1, mode="edge")
        axes = icosahedron_axes().double().numpy()
        threshold = math.sqrt(5) / 3  # between neighbouring corners of a dodecahedron
        cells = np.zeros((14, 14, 2, 10))
        for t, y, x in np.ndindex(4, 28, 28):
            g = np.array([
                padded[t + 1, y + 1, x + 2] - padded[t + 1, y + 1, x],
                padded[t + 1, y + 2, x + 1] - padded[t + 1, y, x + 1],
                padded[t + 2, y + 1, x + 1] - padded[t, y + 1, x + 1],
            ])  # fmt: skip
            length = np.linalg.norm(g)
            votes = np.maximum(np.abs(axes @ g) - threshold * length, 0)
            cells[y // 2, x // 2, t // 2] += votes / np.linalg.norm(votes) * length / 8
        assert np.allclose(_cube(Hog3d()(clips)), _plain_blocks(cells.reshape(14, 14, 20)), atol=1e-4)

    def test_axes_are_ten_and_spread_evenly(self) -> None:
        axes = icosahedron_axes()
        cosines = (axes @ axes.T).abs().fill_diagonal_(0)
        assert axes.shape == (10, 3)
        assert torch.allclose(cosines.max(1).values, torch.tensor(math.sqrt(5) / 3))
        assert torch.allclose(axes.norm(dim=1), torch.tensor(1.0))

    @pytest.mark.parametrize("step_px", [4, -4])
    def test_motion_votes_for_axes_that_lean_with_it(self, step_px: float) -> None:
        votes = Hog3d()(_moving(step_px)).view(4, 2, 10, 49).sum((0, 1, 3))
        lean = icosahedron_axes()[:, 0] * icosahedron_axes()[:, 2]  # a contrast that moves right falls in time
        right, left = votes[lean < -1e-6].sum(), votes[lean > 1e-6].sum()
        assert right > 2 * left if step_px > 0 else left > 2 * right

    def test_a_mirrored_clip_mirrors_cells_and_axes(self) -> None:
        clips = _bytes(1, 16, 56, 56, 3)
        axes = icosahedron_axes()
        twin = (axes * torch.tensor([-1.0, 1.0, 1.0]) @ axes.T).abs().argmax(1)
        ours, other = (Hog3d()(c).view(2, 2, 2, 10, 7, 7) for c in (clips, clips.flip(3)))
        assert torch.allclose(other, ours.flip(1).flip(5)[:, :, :, twin], atol=1e-5)

    def test_the_sign_of_contrast_does_not_matter(self) -> None:
        clips = _moving(3)
        assert torch.allclose(Hog3d()(clips), Hog3d()(255 - clips), atol=1e-5)

    def test_clips_do_not_depend_on_their_batch(self) -> None:
        clips = _bytes(3, 16, 28, 28, 3)
        assert torch.equal(Hog3d()(clips)[1:2], Hog3d()(clips[1:2]))


@pytest.fixture(scope="module")
def generated() -> tuple[torch.Tensor, torch.Tensor, np.ndarray, np.ndarray]:
    """Clips, flow stacks, where the object is (videos, 49), and the motion, of 60 generated scenes with two motions."""
    options = ShapesOptions(videos=60, shapes=1, motions=2, seed=3)
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    clips, stacks, places, labels = [], [], [], []
    for index in range(options.videos):
        scene = make_scene(options, index)
        start = (scene.first + scene.stop) // 2 - 8
        frames = [scene.render(start + t)[4:116, 24:136] for t in range(16)]
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        fields = [engine.calc(grey[t], grey[t + 1], None) for t in range(10)]
        clips.append(np.stack(frames))
        stacks.append(quantise(np.concatenate(fields, axis=2)))
        box = scene.box(start + 8)
        x1, y1, x2, y2 = np.array(box) * [160, 120, 160, 120] - [24, 4, 24, 4]
        place = np.zeros((112, 112), np.float32)
        place[max(int(y1), 0) : int(y2) + 1, max(int(x1), 0) : int(x2) + 1] = 1
        places.append(cv2.resize(place, (7, 7), interpolation=cv2.INTER_AREA).ravel())
        labels.append(scene.label)
    return torch.from_numpy(np.stack(clips)), torch.from_numpy(np.stack(stacks)), np.stack(places), np.array(labels)


@pytest.mark.parametrize("name", ["hof", "hog3d"])
@pytest.mark.slow
def test_motions_of_generated_videos_are_told_apart(name: str, generated: tuple) -> None:
    clips, stacks, places, labels = generated
    cubes = (Hof()(stacks) if name == "hof" else Hog3d()(clips)).flatten(2).numpy()  # [videos, D, 49]
    at_object = (cubes * places[:, None]).sum(2) / (places.sum(1, keepdims=True) + 1e-6)
    accuracy = cross_val_score(LogisticRegression(C=10.0, max_iter=500), at_object, labels, cv=5).mean()
    assert accuracy > 0.85  # chance: 0.5
