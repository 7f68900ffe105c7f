"""Pictures of one or two shapes with their captions, and a measure of whether a picture shows what its caption says.

Shapes are signed distances, so that edges are smooth at any place; everything follows from the seed of the generator given.
"""
import dataclasses

import numpy as np

SIZE = 64
COLOURS = {
    "red": (220, 40, 40), "green": (40, 160, 60), "blue": (40, 70, 220),
    "yellow": (245, 215, 40), "purple": (140, 50, 170), "orange": (245, 130, 30)}
BACKGROUNDS = {"white": (250, 250, 250), "grey": (140, 140, 140), "black": (15, 15, 15)}
SHAPES = ("circle", "square", "triangle")
RADII = {"small": 6.5, "": 10.0, "large": 14.0}
# The relation's words, and the direction from the first shape to the second (y points down).
RELATIONS = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}


@dataclasses.dataclass
class Shape:
    colour: str
    shape: str
    size: str
    x: float = SIZE / 2
    y: float = SIZE / 2

    @property
    def phrase(self) -> str:
        return " ".join(word for word in ("a", self.size, self.colour, self.shape) if word)


@dataclasses.dataclass
class Scene:
    shapes: list[Shape]
    relation: str
    background: str
    tells_background: bool

    @property
    def caption(self) -> str:
        text = f" {self.relation} ".join(shape.phrase for shape in self.shapes)
        return text + (f" on a {self.background} background" if self.tells_background else "")


def scene(rng: np.random.Generator) -> Scene:
    """A random scene; a background that the caption is silent about is white."""
    def shape() -> Shape:
        size = rng.choice(["small", "", "", "", "large"])
        return Shape(str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)), str(size))

    tells = bool(rng.random() < 0.3)
    background = str(rng.choice(list(BACKGROUNDS))) if tells else "white"
    if rng.random() < 0.2:
        only = shape()
        only.x, only.y = rng.uniform(SIZE / 2 - 6, SIZE / 2 + 6, 2)
        return Scene([only], "", background, tells)
    first, second = shape(), shape()
    relation = str(rng.choice(list(RELATIONS)))
    distance = RADII[first.size] + RADII[second.size] + rng.uniform(3, 6)
    # The pair's middle is the picture's, but for a little; the other axis varies on its own.
    middle = SIZE / 2 + (RADII[first.size] - RADII[second.size]) / 2 + rng.uniform(-2, 2)
    across = rng.uniform(SIZE / 2 - 5, SIZE / 2 + 5, 2)
    dx, dy = RELATIONS[relation]
    for item, side, other in ((first, -0.5, across[0]), (second, 0.5, across[1])):
        along = middle + side * distance if dx + dy > 0 else SIZE - middle - side * distance
        item.x, item.y = (along, other) if dx else (other, along)
    return Scene([first, second], relation, background, tells)


def distance(shape: Shape) -> np.ndarray:
    """From each pixel's centre to the shape's edge, negative inside."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    x, y, radius = x - shape.x, y - shape.y, RADII[shape.size]
    if shape.shape == "circle":
        return np.hypot(x, y) - radius
    if shape.shape == "square":
        return np.maximum(abs(x), abs(y)) - 0.9 * radius
    # An isosceles triangle 2 radii high and wide, its tip up.
    slope = np.hypot(2, 1)
    return np.maximum(y - radius, (2 * abs(x) - y - radius) / slope)


def draw(scene: Scene) -> np.ndarray:
    """The picture, `[SIZE, SIZE, 3]` in 0...1."""
    picture = np.broadcast_to(np.array(BACKGROUNDS[scene.background], np.float32) / 255, (SIZE, SIZE, 3))
    for shape in scene.shapes:
        cover = np.clip(0.5 - distance(shape), 0, 1)[..., None].astype(np.float32)
        picture = picture * (1 - cover) + cover * (np.array(COLOURS[shape.colour], np.float32) / 255)
    return picture


def shows(picture: np.ndarray, scene: Scene) -> bool:
    """Whether `picture`, in 0...1, has the scene's shapes in their colours and relation on its background.

    Every pixel counts as the nearest colour. A shape is what has its colour and is no edge: at least 20 pixels whose eight neighbours
    have it too. Which shape it is, its share of its bounding box says: circle 0.79, square 1, triangle 0.5.
    """
    names = list(COLOURS) + list(BACKGROUNDS)
    palette = np.array([*COLOURS.values(), *BACKGROUNDS.values()], np.float32) / 255
    nearest = ((picture[:, :, None] - palette) ** 2).sum(-1).argmin(-1)
    centres, wanted = [], {shape.colour for shape in scene.shapes} | {scene.background}
    for name in names:
        same = np.pad(nearest == names.index(name), 1)
        inner = np.ones((SIZE, SIZE), bool)
        for dy in range(3):
            for dx in range(3):
                inner &= same[dy:dy + SIZE, dx:dx + SIZE]
        if name not in wanted and inner.sum() >= 20:
            return False
        if name == scene.background and inner.sum() < SIZE * SIZE / 4:
            return False
        for shape in scene.shapes:
            if shape.colour != name:
                continue
            if inner.sum() < 20:
                return False
            y, x = np.nonzero(inner)
            filled = inner.sum() / ((np.ptp(y) + 1) * (np.ptp(x) + 1))
            kind = "triangle" if filled < 0.65 else "circle" if filled < 0.9 else "square"
            if kind != shape.shape:
                return False
            centres.append((shape, x.mean(), y.mean()))
    if len(scene.shapes) == 1:
        return True
    (_, x0, y0), (_, x1, y1) = sorted(centres, key=lambda item: item[0] is not scene.shapes[0])
    along = np.dot((x1 - x0, y1 - y0), RELATIONS[scene.relation])
    return along > 6 and along > abs(x1 - x0) + abs(y1 - y0) - along
