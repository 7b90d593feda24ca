"""What stands and moves in a generated street: each function draws one thing at x and z, in metres (perspective.py)."""

from random import Random

from fasterseg_core.config import IGNORE_LABEL
from fasterseg_core.datasets.camvid import CLASSES
from fasterseg_core.datasets.perspective import Canvas, Spot
from fasterseg_core.datasets.segmentation import Colour

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST = range(len(CLASSES))

LEAVES: tuple[Colour, ...] = ((58, 84, 44), (74, 98, 52), (48, 70, 48), (98, 104, 56), (84, 78, 48))
PAINTS: tuple[Colour, ...] = (
    (24, 26, 30), (200, 202, 204), (236, 236, 232), (130, 20, 26), (30, 52, 110), (90, 94, 98), (54, 74, 60),
    (168, 142, 60),
)  # fmt: skip
_CLOTHES: tuple[Colour, ...] = (
    (30, 32, 40), (60, 62, 74), (150, 40, 44), (40, 70, 130), (196, 190, 176), (70, 90, 60), (210, 180, 60),
    (120, 90, 70),
)  # fmt: skip
_SKIN: tuple[Colour, ...] = ((222, 184, 156), (176, 128, 98), (112, 78, 60))
_BLACK: Colour = (22, 22, 24)
_STEEL: tuple[Colour, ...] = ((92, 96, 98), (58, 62, 62), (128, 130, 128), (44, 56, 48))


def shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def varied(rng: Random, colour: Colour, amount: float = 0.15) -> Colour:
    return shade(colour, rng.uniform(1 - amount, 1 + amount))


def tree(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    crown, radius = rng.uniform(3.2, 6.5), rng.uniform(1.2, 2.6)
    bark, leaves = varied(rng, (74, 62, 50), 0.25), varied(rng, rng.choice(LEAVES), 0.25)
    trunk = rng.uniform(0.12, 0.25)
    canvas.upright(x - trunk, x + trunk, 0, crown, z, bark, TREE)
    for i in range(18):
        spot = (x + rng.uniform(-0.8, 0.8) * radius, crown + rng.uniform(-0.7, 0.7) * radius, z)
        size = radius * rng.uniform(0.5, 1.1) * (1.5 - i / 18)
        canvas.disc(spot, size, size * rng.uniform(0.7, 1), shade(leaves, 0.7 + 0.6 * i / 18), TREE)


def fence(canvas: Canvas, x: float, z: float, style: int, colour: Colour) -> None:
    """2.5 metres of wooden fence, railing or mesh; a railing's gaps count as fence, as CamVid labels them."""
    far = z + 2.5
    top = (1.5, 1.05, 1.2)[style]
    panel = [(x, 0.05, z), (x, 0.05, far), (x, top, far), (x, top, z)]
    canvas.polygon(panel, colour if style == 0 else shade(colour, 1.35), FENCE)
    pickets = 5 if style == 0 else 9
    for i in range(pickets + 1):
        at = z + 2.5 * i / pickets
        canvas.line([(x, 0.05, at), (x, top, at)], 0.05, shade(colour, 0.7), FENCE)
    canvas.line([(x, top, z), (x, top, far)], 0.06, shade(colour, 0.6), FENCE)


def lamp_post(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    side = 1 if x > 0 else -1
    height, steel = rng.uniform(5, 8), varied(rng, rng.choice(_STEEL))
    canvas.upright(x - 0.07, x + 0.07, 0, height, z, steel, POLE)
    canvas.upright(x - 0.12, x + 0.12, 0, 1.0, z, shade(steel, 0.85), POLE)
    canvas.line([(x, height, z), (x - side * 1.3, height + 0.25, z)], 0.1, steel, POLE)
    canvas.disc((x - side * 1.3, height + 0.2, z), 0.6, 0.2, shade(steel, 1.4), POLE)


def sign_post(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    height = rng.uniform(2.2, 3.0)
    canvas.upright(x - 0.05, x + 0.05, 0, height, z, varied(rng, (122, 124, 124)), POLE)
    red, white, blue = varied(rng, (186, 30, 34)), varied(rng, (232, 230, 226)), varied(rng, (28, 72, 150))
    match rng.randint(0, 3):
        case 0:
            canvas.disc((x, height, z), 0.75, 0.75, red, SIGN)
            canvas.disc((x, height, z), 0.5, 0.5, white)
        case 1:
            canvas.polygon([(x - 0.45, height - 0.4, z), (x + 0.45, height - 0.4, z), (x, height + 0.4, z)], red, SIGN)
            canvas.polygon([(x - 0.24, height - 0.3, z), (x + 0.24, height - 0.3, z), (x, height + 0.15, z)], white)
        case 2:
            canvas.disc((x, height, z), 0.75, 0.75, blue, SIGN)
            canvas.upright(x - 0.06, x + 0.06, height - 0.25, height + 0.25, z, white)
        case _:
            board = rng.choice((blue, white, (30, 96, 62), (222, 190, 40)))
            canvas.upright(x - 0.6, x + 0.6, height - 0.4, height + 0.4, z, board, SIGN)
            canvas.upright(x - 0.45, x + 0.4, height - 0.05, height + 0.05, z, shade(board, 0.45))


def traffic_light(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    canvas.upright(x - 0.07, x + 0.07, 0, 2.6, z, varied(rng, (60, 62, 62)), POLE)
    canvas.upright(x - 0.2, x + 0.2, 2.3, 3.4, z, _BLACK, SIGN)
    lit = rng.randint(0, 2)
    lamps: tuple[Colour, ...] = ((60, 190, 110), (240, 180, 50), (230, 50, 40))
    for i, colour in enumerate(lamps):
        canvas.disc((x, 2.5 + 0.34 * i, z), 0.24, 0.24, colour if i == lit else shade(colour, 0.3))


def litter_bin(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    """A litter bin: street furniture without a class of its own, so it is void."""
    canvas.upright(x - 0.3, x + 0.3, 0, 1.0, z, varied(rng, (44, 56, 50), 0.4), IGNORE_LABEL)


def vehicle(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    """A car or, one time in six, a van: the flank turned to the camera's side, then the face turned to the camera."""
    van = rng.random() < 1 / 6
    half, length, waist, top = (1.0, 5.2, 1.3, 2.4) if van else (0.88, 4.2, 0.92, rng.uniform(1.4, 1.6))
    tuck = 0.0 if van else 0.16  # by which the cabin is narrower than the body
    paint, glass = varied(rng, rng.choice(PAINTS), 0.25), varied(rng, (40, 46, 54), 0.3)
    shadow = [(x - half - 0.1, 0.0, z - 0.15), (x + half + 0.1, 0.0, z - 0.15)]
    canvas.polygon([*shadow, *((x, 0.0, z + length) for x, _, _ in reversed(shadow))], (34, 34, 38))
    _flank(canvas, x - half if x > canvas.camera.x else x + half, z, length, waist, top, tuck, paint, glass)

    for left in (x - half, x + half - 0.22):
        canvas.upright(left, left + 0.22, 0.0, 0.4, z, _BLACK, CAR)
    canvas.upright(x - half, x + half, 0.25, waist, z, paint, CAR)
    for inset, lift, colour, label in ((0.0, 0.0, paint, CAR), (0.14, 0.04, glass, None)):
        low, high = half - inset, half - tuck - inset
        bottom, roof = waist + lift, top - inset
        outline = [(x - low, bottom, z), (x + low, bottom, z), (x + high, roof, z), (x - high, roof, z)]
        canvas.polygon(outline, colour, label)
    lamp = rng.choice(((190, 24, 24), (240, 236, 214)))  # seen from behind or from the front
    for left in (x - half + 0.05, x + half - 0.35):
        canvas.upright(left, left + 0.3, waist - 0.3, waist - 0.12, z, lamp)
    canvas.upright(x - 0.26, x + 0.26, 0.45, 0.56, z, (222, 214, 150))
    canvas.upright(x - half, x + half, 0.25, 0.34, z, shade(paint, 0.5))


def _flank(
    canvas: Canvas,
    x: float,
    z: float,
    length: float,
    waist: float,
    top: float,
    tuck: float,
    paint: Colour,
    glass: Colour,
) -> None:
    """The side of a vehicle from z to z + length: body, cabin, window and wheels."""
    colour, end = shade(paint, 0.8), z + length
    cabin = x + (tuck if x > canvas.camera.x else -tuck)
    roof, roof_end = (z + 0.7, end - 1.4) if tuck else (z + 0.1, end - 0.8)
    canvas.polygon([(x, 0.25, z), (x, 0.25, end), (x, waist, end), (x, waist, z)], colour, CAR)
    canvas.polygon([(x, waist, z), (x, waist, end - 0.5), (cabin, top, roof_end), (cabin, top, roof)], colour, CAR)
    low, high = [(x, waist, roof), (x, waist, roof_end)], [(cabin, top - 0.12, roof_end), (cabin, top - 0.12, roof)]
    canvas.polygon([*low, *high], glass)
    for axle in (z + 0.8, end - 0.8):
        tyre = ((0.0, -0.25), (0.0, 0.25), (0.5, 0.3), (0.62, 0.0), (0.5, -0.3))
        canvas.polygon([(x, height, axle + offset) for height, offset in tyre], _BLACK, CAR)


def pedestrian(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    height, step, half = rng.uniform(1.5, 1.9), rng.uniform(0.02, 0.3), rng.uniform(0.19, 0.27)
    coat, trousers = varied(rng, rng.choice(_CLOTHES), 0.25), varied(rng, rng.choice(_CLOTHES), 0.25)
    hip, shoulder = 0.48 * height, 0.83 * height
    for foot in (-step, step):
        canvas.line([(x, hip, z), (x + foot, 0.0, z)], 0.16, trousers, PEDESTRIAN)
    corners = ((-half, shoulder), (half, shoulder), (0.8 * half, hip - 0.1), (-0.8 * half, hip - 0.1))
    canvas.polygon([(x + dx, y, z) for dx, y in corners], coat, PEDESTRIAN)
    for arm in (-half, half):
        canvas.line([(x + arm, shoulder, z), (x + 1.3 * arm, hip, z)], 0.1, shade(coat, 0.8), PEDESTRIAN)
    canvas.disc((x, 0.92 * height, z), 0.2, 0.27, rng.choice(_SKIN), PEDESTRIAN)
    canvas.disc((x, 0.95 * height, z), 0.2, 0.16, varied(rng, (60, 46, 36), 0.4), PEDESTRIAN)


def bicyclist(canvas: Canvas, rng: Random, x: float, z: float) -> None:
    """A rider seen from behind or, crossing, from the side; bicycle and rider are one class."""
    coat, trousers = varied(rng, rng.choice(_CLOTHES), 0.25), varied(rng, rng.choice(_CLOTHES), 0.25)
    if rng.random() < 0.5:
        head = _rider_from_behind(canvas, rng, x, z, coat, trousers)
    else:
        head = _rider_from_the_side(canvas, rng, x, z, coat, trousers)
    canvas.disc((head, 1.61, z), 0.21, 0.28, rng.choice(_SKIN), BICYCLIST)
    canvas.disc((head, 1.68, z), 0.26, 0.18, varied(rng, rng.choice(PAINTS), 0.3), BICYCLIST)


def _rider_from_behind(canvas: Canvas, rng: Random, x: float, z: float, coat: Colour, trousers: Colour) -> float:
    """Draws up to the shoulders; returns where the head goes."""
    canvas.disc((x, 0.34, z), 0.1, 0.68, _BLACK, BICYCLIST)
    canvas.line([(x - 0.28, 1.0, z), (x + 0.28, 1.0, z)], 0.05, _BLACK, BICYCLIST)
    for leg in (-0.1, 0.1):
        pedal = rng.uniform(0.15, 0.4)
        canvas.line([(x + leg, 0.95, z), (x + 1.6 * leg, pedal, z)], 0.15, trousers, BICYCLIST)
    corners = ((-0.24, 1.45), (0.24, 1.45), (0.18, 0.85), (-0.18, 0.85))
    canvas.polygon([(x + dx, y, z) for dx, y in corners], coat, BICYCLIST)
    return x


def _rider_from_the_side(canvas: Canvas, rng: Random, x: float, z: float, coat: Colour, trousers: Colour) -> float:
    """Draws up to the shoulders; returns where the head goes."""
    way, frame = rng.choice((-1, 1)), varied(rng, rng.choice(PAINTS), 0.3)

    def along(*corners: tuple[float, float]) -> list[Spot]:
        return [(x + way * ahead, y, z) for ahead, y in corners]

    for wheel in (-0.52, 0.52):
        canvas.ring((x + wheel, 0.34, z), 0.68, 0.05, _BLACK, BICYCLIST)
    canvas.line(along((-0.52, 0.34), (0, 0.34), (-0.15, 0.85), (-0.52, 0.34)), 0.05, frame, BICYCLIST)
    canvas.line(along((0, 0.34), (0.42, 0.85), (0.52, 0.34)), 0.05, frame, BICYCLIST)
    canvas.line(along((-0.15, 0.9), (0.22, 0.62), (0.05, 0.2)), 0.15, trousers, BICYCLIST)
    canvas.line(along((0.18, 1.32), (0.42, 0.98)), 0.09, shade(coat, 0.8), BICYCLIST)
    canvas.polygon(along((0.0, 1.42), (0.35, 1.42), (0.0, 0.85), (-0.3, 0.88)), coat, BICYCLIST)
    return x + way * 0.28
