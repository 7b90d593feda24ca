"""Generated street scenes with CamVid's 11 classes and exact labels, for trying everything out without a data set.

A scene is a street in metres seen through a camera: buildings and trees along two pavements, fences, poles and signs at
the kerb, cars, pedestrians and bicyclists. Each image follows from (seed, split, index) and the size alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fasterseg_core.datasets.camvid import CLASSES, COLOURS
from fasterseg_core.datasets.perspective import Camera, Canvas
from fasterseg_core.datasets.segmentation import Colour, DatasetError
from fasterseg_core.datasets.street_things import (
    BUILDING,
    LEAVES,
    PAINTS,
    PAVEMENT,
    ROAD,
    SKY,
    TREE,
    bicyclist,
    fence,
    lamp_post,
    litter_bin,
    pedestrian,
    shade,
    sign_post,
    traffic_light,
    tree,
    varied,
    vehicle,
)
from fasterseg_core.search_space import Resolution

_NUM_IMAGES = {"train": 200, "val": 50}
_RESOLUTION = Resolution(height=360, width=480)
_NEAR, _FAR = 3.0, 110.0  # metres

Thing = tuple[float, Callable[[], None]]  # distance in metres, how to draw it


@dataclass(frozen=True, kw_only=True)
class StreetScenes:
    """Scenes drawn when asked for."""

    split: str
    num_images: int
    resolution: Resolution
    seed: int
    classes: tuple[str, ...] = CLASSES
    colours: tuple[Colour, ...] = COLOURS

    def __len__(self) -> int:
        return self.num_images

    def sample(self, index: int) -> tuple[Tensor, Tensor]:
        if not 0 <= index < self.num_images:
            raise IndexError(f"scene {index} of {self.num_images}")
        image, mask = draw_scene(Random(f"{self.seed}/{self.split}/{index}"), self.resolution)
        return torch.from_numpy(image).permute(2, 0, 1).contiguous(), torch.from_numpy(mask)


def street_scenes(
    split: str, *, num_images: int | None = None, resolution: Resolution = _RESOLUTION, seed: int = 0
) -> StreetScenes:
    """One split of generated scenes, 200 for "train" and 50 for "val" where `num_images` is not given."""
    if split not in _NUM_IMAGES:
        raise DatasetError(f"street scenes have the splits train and val, not {split!r}")
    count = _NUM_IMAGES[split] if num_images is None else num_images
    return StreetScenes(split=split, num_images=count, resolution=resolution, seed=seed)


def draw_scene(rng: Random, resolution: Resolution) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """An image (H, W, 3) and its mask (H, W) with CamVid's class ids and IGNORE_LABEL."""
    height, width = resolution.height, resolution.width
    street = _Street.random(rng)
    camera = Camera(
        focal=rng.uniform(0.85, 1.1) * (height * width * 0.75) ** 0.5,
        horizon=rng.uniform(0.44, 0.56) * height,
        vanishing=rng.uniform(0.40, 0.60) * width,
        height=rng.uniform(1.3, 1.8),
        x=rng.uniform(-0.6, -0.35) * street.road,
    )
    zenith, haze = rng.choice(_SKIES)
    image = Image.fromarray(_gradient(zenith, haze, height, width, camera.horizon))
    mask = Image.new("L", (width, height), SKY)
    canvas = Canvas(image, mask, camera, haze, haze_length=rng.uniform(60, 400))

    _clouds(canvas, rng)
    _skyline(canvas, rng)
    _ground(canvas, rng, street)
    for side in (-1, 1):
        _buildings(canvas, rng, street, side)
    for _, draw in sorted(_things(canvas, rng, street), key=lambda thing: -thing[0]):
        draw()
    return _photographed(image, rng), np.array(mask)


_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((90, 140, 205), (200, 216, 232)),  # clear
    ((150, 165, 185), (222, 224, 226)),  # hazy
    ((178, 180, 184), (214, 214, 212)),  # overcast
    ((120, 124, 132), (178, 178, 178)),  # before rain
    ((96, 104, 150), (236, 196, 160)),  # evening
)
_WALLS: tuple[Colour, ...] = (
    (150, 92, 74), (178, 152, 120), (196, 186, 168), (128, 124, 120), (168, 120, 96), (110, 98, 92), (206, 200, 190),
    (142, 132, 108), (92, 100, 112),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Street:
    """The cross-section in metres: half of the road, where the walls stand on either side, and the light."""

    road: float
    wall: dict[int, float]  # side -1 or 1 -> distance of the walls from the middle
    sunny_side: int

    @classmethod
    def random(cls, rng: Random) -> "_Street":
        road = rng.uniform(3.6, 5.6)
        wall = {side: road + rng.uniform(1.8, 4.0) + rng.choice((0.0, 0.0, 2.5, 6.0)) for side in (-1, 1)}
        return cls(road=road, wall=wall, sunny_side=rng.choice((-1, 1)))


def _gradient(top: Colour, bottom: Colour, height: int, width: int, horizon: float) -> NDArray[np.uint8]:
    share = np.clip(np.arange(height) / horizon, 0, 1)[:, None, None]
    rows = np.array(top) * (1 - share) + np.array(bottom) * share
    return np.broadcast_to(rows, (height, width, 3)).astype(np.uint8)


def _clouds(canvas: Canvas, rng: Random) -> None:
    for _ in range(rng.choice((0, 3, 6))):
        x, y, z = rng.uniform(-120, 120), rng.uniform(25, 70), 120.0
        grey = rng.randint(205, 245)
        for _ in range(4):
            spot = (x + rng.uniform(-14, 14), y + rng.uniform(-2, 2), z)
            canvas.disc(spot, rng.uniform(12, 30), rng.uniform(3, 7), (grey, grey, grey))


def _skyline(canvas: Canvas, rng: Random) -> None:
    """What closes the street at its end: low houses and trees, with gaps."""
    x = -110.0
    while x < 110:
        width, height = rng.uniform(6, 18), rng.uniform(4, 13)
        if rng.random() < 0.45:
            canvas.upright(x, x + width, 0, height, _FAR, rng.choice(_WALLS), BUILDING)
        elif rng.random() < 0.8:
            for _ in range(3):
                spot = (x + rng.uniform(0, width), height * 0.35, _FAR)
                canvas.disc(spot, width * 0.8, height * rng.uniform(0.7, 1.1), varied(rng, rng.choice(LEAVES)), TREE)
        x += width


def _ground(canvas: Canvas, rng: Random, street: _Street) -> None:
    """Pavement everywhere, grass in some front gardens, the road on top."""
    slabs = varied(rng, rng.choice(((150, 146, 140), (172, 166, 156), (128, 126, 126))))
    asphalt = varied(rng, rng.choice(((92, 92, 96), (112, 110, 108), (76, 78, 84), (128, 124, 120))))
    _strip(canvas, -400, 400, 1.0, 4 * _FAR, slabs, PAVEMENT)
    for side, wall in street.wall.items():
        if wall - street.road > 4 and rng.random() < 0.7:
            _strip(canvas, side * (street.road + 2.2), side * (wall + 12), 1.0, _FAR, varied(rng, (92, 112, 60)), TREE)
        for joint in range(4, 40, 2):
            _strip(canvas, side * street.road, side * (street.road + 2.2), joint, joint + 0.06, shade(slabs, 0.82))
        _strip(canvas, side * (street.road - 0.05), side * (street.road + 0.2), 1.0, _FAR, shade(slabs, 1.2), PAVEMENT)
    _strip(canvas, -street.road, street.road, 1.0, 4 * _FAR, asphalt, ROAD)
    _markings(canvas, rng, street)
    for _ in range(rng.randint(2, 7)):  # patches
        x, z = rng.uniform(-street.road, street.road - 2), rng.uniform(3, 30)
        _strip(canvas, x, x + rng.uniform(0.5, 2), z, z + rng.uniform(1, 8), varied(rng, asphalt, 0.1), ROAD)
    if rng.random() < 0.6:  # the shadow of the row of houses
        edge = -street.sunny_side * street.road
        reach = street.sunny_side * rng.uniform(0.2, 1.2) * street.road
        _strip(canvas, edge, edge + reach, 1.0, _FAR, shade(asphalt, 0.62), ROAD)


def _markings(canvas: Canvas, rng: Random, street: _Street) -> None:
    """A dashed middle line, lines along the kerbs and a crossing, each in some streets."""
    paint = shade((226, 224, 214), rng.uniform(0.75, 1))
    if rng.random() < 0.8:
        gap = rng.uniform(3, 6)
        for i in range(int(60 / gap)):
            _strip(canvas, -0.07, 0.07, 2 + i * gap, 2 + (i + 0.5) * gap, paint)
    if rng.random() < 0.5:
        for side in (-1, 1):
            _strip(canvas, side * (street.road - 0.55), side * (street.road - 0.42), 1.0, 70, paint)
    if rng.random() < 0.25:
        z = rng.uniform(8, 30)
        for i in range(int(2 * street.road)):
            x = i + 0.25 - street.road
            _strip(canvas, x, x + 0.5, z, z + 3, paint)


def _strip(
    canvas: Canvas, x0: float, x1: float, z0: float, z1: float, colour: Colour, label: int | None = None
) -> None:
    canvas.polygon([(x0, 0, z0), (x1, 0, z0), (x1, 0, z1), (x0, 0, z1)], colour, label)


def _buildings(canvas: Canvas, rng: Random, street: _Street, side: int) -> None:
    """A row of houses along one pavement, the farthest first, with gaps for side streets."""
    houses: list[tuple[float, float]] = []
    z = rng.uniform(-12, 4)
    while z < _FAR:
        depth = rng.uniform(7, 22)
        if rng.random() < 0.88:
            houses.append((max(z, _NEAR), z + depth))
        z += depth + rng.choice((0.0, 0.0, 0.0, 4.0, 9.0))
    roofs = rng.uniform(5, 16)
    light = 1.12 if side == street.sunny_side else 0.78
    for near, far in reversed(houses):
        if far > near + 1:
            _house(canvas, rng, side, street.wall[side], near, far, roofs * rng.uniform(0.75, 1.3), light)


def _house(
    canvas: Canvas, rng: Random, side: int, wall: float, near: float, far: float, height: float, light: float
) -> None:
    colour = varied(rng, shade(rng.choice(_WALLS), light))
    x = side * (wall + rng.uniform(0, 0.8))
    facade = [(x, 0.0, near), (x, 0.0, far), (x, height, far), (x, height, near)]
    canvas.polygon(facade, colour, BUILDING)
    gable = sorted((x, x + side * 12))
    canvas.upright(gable[0], gable[1], 0, height, near, shade(colour, 0.85), BUILDING)
    if rng.random() < 0.6:  # cornice
        band = [(x, height - 0.6, near), (x, height - 0.6, far), (x, height, far), (x, height, near)]
        canvas.polygon(band, shade(colour, rng.choice((0.7, 1.15))), BUILDING)
    if rng.random() < 0.35:  # shops
        shop = [(x, 0.0, near), (x, 0.0, far), (x, 3.0, far), (x, 3.0, near)]
        canvas.polygon(shop, varied(rng, rng.choice(PAINTS), 0.4), BUILDING)
    if near < 60:
        _windows(canvas, rng, x, near, far, height, colour)


def _windows(canvas: Canvas, rng: Random, x: float, near: float, far: float, height: float, wall: Colour) -> None:
    storey, bay = rng.uniform(2.7, 3.4), rng.uniform(2.2, 3.6)
    glass = varied(rng, rng.choice(((52, 58, 68), (84, 96, 108), (34, 36, 42), (150, 164, 176))))
    frame = shade(wall, rng.choice((0.75, 1.2)))
    for floor in range(int((height - 1) / storey)):
        bottom = floor * storey + 0.9
        for i in range(int((far - near) / bay)):
            z0 = near + i * bay + 0.25 * bay
            z1, top = z0 + 0.5 * bay, bottom + 0.52 * storey
            if z0 < 25:
                sill = 0.12
                edge = [(x, bottom - sill, z0 - sill), (x, bottom - sill, z1 + sill)]
                canvas.polygon([*edge, (x, top + sill, z1 + sill), (x, top + sill, z0 - sill)], frame)
            canvas.polygon([(x, bottom, z0), (x, bottom, z1), (x, top, z1), (x, top, z0)], glass)


def _things(canvas: Canvas, rng: Random, street: _Street) -> list[Thing]:
    """Everything that stands or moves, with its distance."""
    things = [thing for side in (-1, 1) for thing in _beside_the_road(canvas, rng, street, side)]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        lane = rng.choice((-0.5, 0.5)) * street.road
        things.append(_placed(canvas, rng, vehicle, lane, rng.uniform(9, 70)))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        x = rng.uniform(-0.85, 0.85) * street.road
        things.append(_placed(canvas, rng, bicyclist, x, rng.uniform(5, 22)))
    if rng.random() < 0.25:
        x = rng.uniform(-0.8, 0.8) * street.road
        things.append(_placed(canvas, rng, pedestrian, x, rng.uniform(8, 25)))
    return things


def _beside_the_road(canvas: Canvas, rng: Random, street: _Street, side: int) -> Iterator[Thing]:
    """Trees, a fence, poles, signs, people and parked vehicles on one side."""
    kerb, wall = side * street.road, side * street.wall[side]
    if rng.random() < 0.6:
        start, spacing = rng.uniform(5, 16), rng.uniform(7, 16)
        for i in range(rng.randint(1, 6)):
            yield _placed(canvas, rng, tree, kerb + side * rng.uniform(0.7, 1.1), start + i * spacing)
    if abs(wall - kerb) > 4:
        for _ in range(rng.randint(0, 4)):
            yield _placed(canvas, rng, tree, wall - side * 1.2, rng.uniform(8, 60))
    if rng.random() < 0.55:
        x = rng.choice((kerb + side * 0.3, wall - side * 0.4, kerb + side * 2.3))
        style, tone = rng.randint(0, 2), varied(rng, rng.choice(((66, 66, 70), (126, 96, 66), (196, 194, 188))))
        start = rng.uniform(3.5, 14)
        for i in range(rng.randint(4, 14)):
            z = start + 2.5 * i
            yield z, partial(fence, canvas, x, z, style, tone)
    start, spacing = rng.uniform(5, 18), rng.uniform(12, 28)
    for i in range(rng.randint(1, 4)):
        yield _placed(canvas, rng, lamp_post, kerb + side * 0.45, start + i * spacing)
    for _ in range(rng.randint(0, 3)):
        yield _placed(canvas, rng, sign_post, kerb + side * rng.uniform(0.4, 0.9), rng.uniform(5, 35))
    if rng.random() < 0.3:
        yield _placed(canvas, rng, traffic_light, kerb + side * 0.5, rng.uniform(9, 28))
    for _ in range(rng.choice((0, 1, 2, 3, 5))):
        yield _placed(canvas, rng, pedestrian, kerb + side * rng.uniform(0.4, 2.2), rng.uniform(4.5, 28))
    if rng.random() < 0.2:
        yield _placed(canvas, rng, litter_bin, kerb + side * 0.7, rng.uniform(6, 25))
    if rng.random() < 0.55:
        start, spacing = rng.uniform(5, 18), rng.uniform(5.6, 6.4)
        for i in range(rng.randint(1, 6)):
            yield _placed(canvas, rng, vehicle, kerb - side * 1.1, start + i * spacing)


def _placed(
    canvas: Canvas, rng: Random, draw: Callable[[Canvas, Random, float, float], None], x: float, z: float
) -> Thing:
    return z, partial(draw, canvas, rng, x, z)


def _photographed(image: Image.Image, rng: Random) -> NDArray[np.uint8]:
    """The image with the exposure, colour cast, contrast and noise of a camera, (H, W, 3)."""
    gain, gamma = rng.uniform(0.65, 1.15), rng.uniform(0.85, 1.2)
    casts = [gain * rng.uniform(0.93, 1.07) for _ in range(3)]
    tones = [min(255, round(255 * (value / 255) ** gamma * cast)) for cast in casts for value in range(256)]
    pixels = np.array(image.point(tones), np.int16)
    level = rng.randint(3, 16)
    noise = np.random.default_rng(rng.getrandbits(63)).integers(-level, level + 1, (*pixels.shape[:2], 1), np.int8)
    photo: NDArray[np.uint8] = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    return photo
