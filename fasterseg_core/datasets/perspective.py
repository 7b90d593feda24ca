"""A pinhole camera over a street that paints every shape into an image and, at the same pixels, into its mask."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from fasterseg_core.datasets.segmentation import Colour

Point = tuple[float, float]
Spot = tuple[float, float, float]  # metres: to the right of the road's middle, above the ground, ahead of the camera


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Where the camera stands and looks; lengths on the image in pixels, on the street in metres."""

    focal: float
    horizon: float  # row
    vanishing: float  # column
    height: float  # above the ground
    x: float  # to the right of the road's middle

    def project(self, spot: Spot) -> Point:
        """The (column, row) of a spot on the street."""
        x, y, z = spot
        return self.vanishing + self.focal * (x - self.x) / z, self.horizon + self.focal * (self.height - y) / z


class Canvas:
    """An RGB image and its mask. A shape without a label is a detail of what lies below it: only its colour is painted.

    Far shapes fade into the haze's colour; `haze_length` is the distance in metres at which half is left.
    """

    def __init__(self, image: Image.Image, mask: Image.Image, camera: Camera, haze: Colour, haze_length: float) -> None:
        self.camera = camera
        self._pens = (ImageDraw.Draw(image), ImageDraw.Draw(mask))
        self._haze, self._haze_length = haze, haze_length

    def polygon(self, spots: Sequence[Spot], colour: Colour, label: int | None = None) -> None:
        """A polygon in space, hazy as its middle is far."""
        outline = [self.camera.project(spot) for spot in spots]
        colour = self._faded(colour, sum(spot[2] for spot in spots) / len(spots))
        for pen, ink in self._strokes(colour, label):
            pen.polygon(outline, fill=ink)

    def upright(
        self, left: float, right: float, bottom: float, top: float, z: float, colour: Colour, label: int | None = None
    ) -> None:
        """A rectangle that faces the camera, at least one pixel wide and high."""
        x0, y0 = self.camera.project((left, top, z))
        x1, y1 = self.camera.project((right, bottom, z))
        for pen, ink in self._strokes(self._faded(colour, z), label):
            pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), fill=ink)

    def disc(self, centre: Spot, width: float, height: float, colour: Colour, label: int | None = None) -> None:
        """An ellipse that faces the camera."""
        for pen, ink in self._strokes(self._faded(colour, centre[2]), label):
            pen.ellipse(self._box(centre, width, height), fill=ink)

    def ring(self, centre: Spot, diameter: float, width: float, colour: Colour, label: int | None = None) -> None:
        """The outline of a circle that faces the camera, of a width in metres."""
        for pen, ink in self._strokes(self._faded(colour, centre[2]), label):
            pen.ellipse(self._box(centre, diameter, diameter), outline=ink, width=self._pixels(width, centre[2]))

    def line(self, spots: Sequence[Spot], width: float, colour: Colour, label: int | None = None) -> None:
        """A line through spots, of a width in metres and at least one pixel."""
        z = spots[0][2]
        track = [self.camera.project(spot) for spot in spots]
        for pen, ink in self._strokes(self._faded(colour, z), label):
            pen.line(track, fill=ink, width=self._pixels(width, z))

    def _strokes(
        self, colour: Colour, label: int | None
    ) -> Sequence[tuple[ImageDraw.ImageDraw, Colour] | tuple[ImageDraw.ImageDraw, int]]:
        image, mask = self._pens
        return [(image, colour)] if label is None else [(image, colour), (mask, label)]

    def _faded(self, colour: Colour, z: float) -> Colour:
        left = 0.5 ** (z / self._haze_length)
        red, green, blue = (round(c * left + h * (1 - left)) for c, h in zip(colour, self._haze, strict=True))
        return red, green, blue

    def _box(self, centre: Spot, width: float, height: float) -> tuple[float, float, float, float]:
        x, y = self.camera.project(centre)
        scale = self.camera.focal / centre[2] / 2
        return x - width * scale, y - height * scale, x + width * scale, y + height * scale

    def _pixels(self, width: float, z: float) -> int:
        return max(1, round(width * self.camera.focal / z))
