"""Pictures of one or two shapes with their captions, and a measure of whether a picture shows what its caption says.

Shapes are signed distances, so that edges are smooth at any place; everything follows from the seed of the generator given.
"""
import dataclasses

import numpy as np

SIZE = 64
COLOURS = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 220),
    "yellow": (245, 215, 40), "purple": (140, 50, 170), "black": (20, 20, 20)}
BACKGROUND = (250, 250, 250)
SHAPES = ("circle", "square", "triangle")
# The relation's words, and the direction from the first shape to the second (y points down).
RELATIONS = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}


@dataclasses.dataclass
class Shape:
    colour: str
    shape: str
    radius: float
    x: float = SIZE / 2
    y: float = SIZE / 2

    @property
    def phrase(self) -> str:
        return f"a {self.colour} {self.shape}"


@dataclasses.dataclass
class Scene:
    shapes: list[Shape]
    relation: str

    @property
    def caption(self) -> str:
        return f" {self.relation} ".join(shape.phrase for shape in self.shapes)


def scene(rng: np.random.Generator) -> Scene:
    """A random scene of one shape, or of two side by side around the picture's middle."""
    def shape() -> Shape:
        return Shape(str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)), rng.uniform(10, 12))

    if rng.random() < 0.15:
        only = shape()
        only.x, only.y = rng.uniform(SIZE / 2 - 3, SIZE / 2 + 3, 2)
        return Scene([only], "")
    first, second = shape(), shape()
    relation = str(rng.choice(list(RELATIONS)))
    middle, distance = SIZE / 2 + rng.uniform(-2, 2), rng.uniform(28, 31)
    across = rng.uniform(SIZE / 2 - 3, SIZE / 2 + 3, 2)
    dx, dy = RELATIONS[relation]
    for item, side, other in ((first, -0.5, across[0]), (second, 0.5, across[1])):
        along = middle + side * distance * (dx + dy)
        item.x, item.y = (along, other) if dx else (other, along)
    return Scene([first, second], relation)


def distance(shape: Shape) -> np.ndarray:
    """From each pixel's centre to the shape's edge, negative inside."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    x, y, radius = x - shape.x, y - shape.y, shape.radius
    if shape.shape == "circle":
        return np.hypot(x, y) - radius
    if shape.shape == "square":
        return np.maximum(abs(x), abs(y)) - 0.9 * radius
    # An isosceles triangle 2 radii high and wide, its tip up.
    slope = np.hypot(2, 1)
    return np.maximum(y - radius, (2 * abs(x) - y - radius) / slope)


def draw(scene: Scene) -> np.ndarray:
    """The picture, `[SIZE, SIZE, 3]` in 0...1."""
    picture = np.broadcast_to(np.array(BACKGROUND, np.float32) / 255, (SIZE, SIZE, 3))
    for shape in scene.shapes:
        cover = np.clip(0.5 - distance(shape), 0, 1)[..., None].astype(np.float32)
        picture = picture * (1 - cover) + cover * (np.array(COLOURS[shape.colour], np.float32) / 255)
    return picture


def shows(picture: np.ndarray, scene: Scene) -> bool:
    """Whether `picture`, in 0...1, has the scene's shapes, in their colours and relation, and no other colour.

    Every pixel counts as the nearest colour. A shape is what has its colour and is no edge: at least 20 pixels whose eight neighbours
    have it too. Which shape it is, its share of its bounding box says: circle 0.79, square 1, triangle 0.5.
    """
    palette = np.array([*COLOURS.values(), BACKGROUND], np.float32) / 255
    nearest = ((picture[:, :, None] - palette) ** 2).sum(-1).argmin(-1)
    centres = {}
    for index, colour in enumerate(COLOURS):
        same = np.pad(nearest == index, 1)
        inner = np.ones((SIZE, SIZE), bool)
        for dy in range(3):
            for dx in range(3):
                inner &= same[dy:dy + SIZE, dx:dx + SIZE]
        wanted = [shape for shape in scene.shapes if shape.colour == colour]
        if (inner.sum() >= 20) != bool(wanted):
            return False
        if wanted:
            y, x = np.nonzero(inner)
            filled = inner.sum() / ((np.ptp(y) + 1) * (np.ptp(x) + 1))
            if wanted[0].shape != ("triangle" if filled < 0.65 else "circle" if filled < 0.9 else "square"):
                return False
            centres[colour] = np.array((x.mean(), y.mean()))
    if len(scene.shapes) == 1:
        return True
    first, second = (centres[shape.colour] for shape in scene.shapes)
    along, across = (second - first) @ RELATIONS[scene.relation], abs(second - first).sum()
    return bool(along > 6 and along > across - along)
