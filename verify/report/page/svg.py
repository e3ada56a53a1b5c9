"""Small plots as SVG text. Colours are classes of the page's style, so they follow its theme.

Everything that is put in is escaped; numbers are rounded to a tenth of a pixel. Thousands of points
are one path of round dots, which browsers draw at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 470, 290
LEFT, RIGHT, TOP, BOTTOM = 68, 24, 14, 46
NICE = (1.0, 2.0, 2.5, 5.0, 10.0)

Points = Sequence[tuple[float, float]]


def element(name: str, content: str | Markup = "", **attributes: object) -> Markup:
    """One element; `_` in names of attributes stands for `-`, a last one is dropped."""
    parts = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), parts, content)


def px(value: float) -> str:
    """A length in pixels, short."""
    return f"{value:.1f}".removesuffix(".0")


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`."""
    span = high - low
    if not (span > 0 and math.isfinite(span)):
        return [low]
    unit = 10.0 ** math.floor(math.log10(span / most))
    step = next(n * unit for n in (*NICE, 20.0) if span / (n * unit) <= most)
    first = math.ceil(low / step - 1e-9)
    count = math.floor((high - first * step) / step + 1e-9) + 1
    return [(first + i) * step for i in range(count)]


@dataclass(frozen=True, slots=True)
class Axis:
    """From values to pixels.

    Attributes:
        low, high: ends of what is shown.
        label: in words, with the unit.
        log: whether by powers of ten.
        percent: whether values are shares.
    """

    low: float
    high: float
    label: str
    log: bool = False
    percent: bool = False
    bare: bool = False
    """No numbers: names stand there."""
    whole: bool = False
    """Counts: nothing between whole numbers."""

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one; what lies beyond stays at the end."""
        of: Callable[[float], float] = math.log10 if self.log else float
        low, high = of(self.low), of(self.high)
        where = of(max(value, self.low)) if self.log else value
        return min(1.0, max(0.0, (where - low) / (high - low))) if high > low else 0.5

    def marks(self) -> list[float]:
        """Where numbers stand."""
        if self.bare:
            return []
        if not self.log:
            found = ticks(self.low, self.high)
            return [t for t in found if t == round(t)] if self.whole else found
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        step = max(1, (last - first) // 6)
        return [10.0**power for power in range(first, last + 1, step)]

    def written(self, value: float) -> str:
        """A number at the axis."""
        return f"{100 * value:g} %" if self.percent else f"{value:.4g}"


@dataclass(slots=True)
class Plot:
    """A picture that is added to, then told with `text`.

    Attributes:
        title: what it shows, for those who cannot see it.
        x, y: its axes.
        parts: what was added.
        key: marks and words of the legend.
    """

    title: str
    x: Axis
    y: Axis
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    parts: list[Markup] = field(default_factory=list)
    key: list[tuple[str, str]] = field(default_factory=list)

    def at_x(self, value: float) -> float:
        """Pixels from the left."""
        return self.left + (self.width - self.left - RIGHT) * self.x.share(value)

    def at_y(self, value: float) -> float:
        """Pixels from the top."""
        return self.height - BOTTOM - (self.height - TOP - BOTTOM) * self.y.share(value)

    def along(self, points: Points) -> str:
        """Commands of a path through points."""
        return "M" + "L".join(f"{px(self.at_x(x))} {px(self.at_y(y))}" for x, y in points)

    def line(self, points: Points, kind: str, name: str = "") -> None:
        """A line in the colour of `kind`."""
        if points:
            self.parts.append(element("path", d=self.along(points), class_=f"line {kind}"))
            self.named(name, f"line {kind}")

    def area(self, points: Points, kind: str, name: str = "") -> None:
        """A filled shape."""
        if points:
            self.parts.append(element("path", d=self.along(points) + "Z", class_=f"area {kind}"))
            self.named(name, f"area {kind}")

    def dots(self, points: Points, kind: str, name: str = "", radius: float = 2.5) -> None:
        """Round dots, one path for all; those at the same pixel are drawn once."""
        places = {f"M{px(self.at_x(x))} {px(self.at_y(y))}h0": None for x, y in points}
        if places:
            path = element(
                "path", d="".join(places), stroke_width=2 * radius, class_=f"dots {kind}"
            )
            self.parts.append(path)
            self.named(name, f"dots {kind}")

    def bars(self, edges: Sequence[float], heights: Sequence[float], kind: str, name: str) -> None:
        """A histogram."""
        steps = []
        floor = self.at_y(self.y.low)
        for i, height in enumerate(heights):
            if height > 0:
                a, b, top = self.at_x(edges[i]), self.at_x(edges[i + 1]), self.at_y(height)
                steps.append(
                    f"M{px(a)} {px(floor)}V{px(top)}H{px(max(b - 1, a + 0.5))}V{px(floor)}Z"
                )
        if steps:
            self.parts.append(element("path", d="".join(steps), class_=f"bar {kind}"))
            self.named(name, f"bar {kind}")

    def outline(
        self, edges: Sequence[float], heights: Sequence[float], kind: str, name: str
    ) -> None:
        """A histogram as a line, to be seen over another one."""
        points = [(edges[0], self.y.low)]
        for i, height in enumerate(heights):
            points += [(edges[i], height), (edges[i + 1], height)]
        self.line([*points, (edges[-1], self.y.low)], kind, name)

    def named(self, name: str, kind: str) -> None:
        """Put a name into the legend."""
        if name:
            self.key.append((kind, name))

    def frame(self) -> list[Markup]:
        """Grid, numbers and names of the axes."""
        drawn = []
        floor, right = self.height - BOTTOM, self.width - RIGHT
        for value in self.x.marks():
            at = px(self.at_x(value))
            drawn.append(element("path", d=f"M{at} {TOP}V{floor}", class_="grid"))
            words = self.x.written(value)
            drawn.append(element("text", words, x=at, y=floor + 17, text_anchor="middle"))
        for value in self.y.marks():
            height = self.at_y(value)
            drawn.append(element("path", d=f"M{self.left} {px(height)}H{right}", class_="grid"))
            words = self.y.written(value)
            place = {"x": self.left - 7, "y": px(height + 4)}
            drawn.append(element("text", words, text_anchor="end", **place))
        middle = px((self.left + right) / 2)
        drawn.append(
            element("text", self.x.label, x=middle, y=self.height - 8, text_anchor="middle")
        )
        up = px((TOP + floor) / 2)
        drawn.append(
            element(
                "text",
                self.y.label,
                x=0,
                y=0,
                text_anchor="middle",
                transform=f"translate(12 {up}) rotate(-90)",
            )
        )
        return drawn

    def text(self) -> Markup:
        """The picture and its legend as HTML."""
        inside = Markup("").join([*self.frame(), *self.parts])
        picture = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            self.width, self.height, self.title, inside
        )
        return picture + legend(self.key)


def legend(key: Sequence[tuple[str, str]]) -> Markup:
    """Names beside samples of their colour."""
    if not key:
        return Markup("")
    lines = [
        Markup(
            '<li><svg viewBox="0 0 22 12" class="sample" aria-hidden="true">{}</svg>{}</li>'
        ).format(sample(kind), escape(name))
        for kind, name in key
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(lines))


def sample(kind: str) -> Markup:
    """A mark as it looks in the picture."""
    shape = kind.partition(" ")[0]
    if shape == "line":
        return element("path", d="M1 6H21", class_=kind)
    if shape == "dots":
        return element("path", d="M11 6h0", stroke_width=7, class_=kind)
    return element("path", d="M3 1H19V11H3Z", class_=kind)
