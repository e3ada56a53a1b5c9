"""Subject: a model and its inputs, and what a page needs to know of them."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from verify.api import largest_radius
from verify.explore.layout import IMAGE, Layout
from verify.explore.tools import Tools
from verify.network import Network
from verify.values.question import Question, question
from verify.values.result import norm_name

PER_PAGE = 48
"""Thumbnails sent at once."""
THUMBNAIL = 32
"""Cells of a thumbnail's side at most."""
MOST_DEGREES = 45.0
"""Rotations are explored up to there, either way."""
SHARE_OF_WIDTH = 0.3
"""Of the input range: the slider's end for the norm inf."""


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """What is explored.

    Attributes:
        network: behind the normalisation, if one was given.
        asked: all inputs with the labels that must hold; its radii mean nothing.
        indices: number of each input in its source.
        source: of the inputs, in words.
        input_range: that inputs never leave, or None.
        layout: how one input is shown.
        own_labels: whether the labels are the data's, not the model's predictions.
        blank: whether there are no data, but one blank input to draw on.
        notes: what was assumed, for people.
    """

    network: Network
    asked: Question
    indices: tuple[int, ...]
    source: str
    input_range: tuple[float, float] | None
    layout: Layout
    own_labels: bool
    blank: bool = False
    notes: tuple[str, ...] = ()

    @property
    def span(self) -> tuple[float, float]:
        """Least and largest value that is drawn."""
        if self.input_range is not None:
            return self.input_range
        low, high = float(self.asked.x.min()), float(self.asked.x.max())
        return (low, high) if high > low else (low - 0.5, low + 0.5)

    @property
    def largest(self) -> float:
        """Radius beyond which nothing is searched."""
        return largest_radius(self.asked.x, self.asked.p, self.input_range)

    @property
    def widest(self) -> float:
        """Where the slider of the radius ends."""
        low, high = self.span
        width = SHARE_OF_WIDTH * (high - low)
        if math.isinf(self.asked.p):
            return width
        # A ball about as large as that box's share of the inputs would be no use: what fools
        # networks grows more slowly.
        return width * math.sqrt(self.layout.size) / (2.0 if self.asked.p == 2 else 0.5)

    @property
    def turns(self) -> bool:
        """Whether rotations can be explored: the model takes (channel, height, width)."""
        shape = self.network.input_shape
        return len(shape) == 3 and min(shape[1:]) > 1 and not self.layout.channels_last

    def question(self, x: Tensor, label: int, eps: float) -> Question:
        """About one input, shape (1, *input).

        Raises:
            InputError: if the input leaves the range, or is not finite.
        """
        labels = torch.tensor([label])
        return question(x, labels, eps, self.asked.p, input_range=self.input_range)

    def about(self, tools: Tools, seconds: float) -> dict[str, object]:
        """What the page shows around everything else."""
        low, high = self.span
        network = self.network
        return {
            "model": Path(network.path or "model").name,
            "sha256": network.sha256,
            "shape": list(network.input_shape),
            "classes": network.classes,
            "tail": network.graph.tail,
            "layout": self.layout.to_record(),
            "range": None if self.input_range is None else list(self.input_range),
            "span": [low, high],
            "norm": norm_name(self.asked.p),
            "widest": self.widest,
            "largest": self.largest,
            "degrees": MOST_DEGREES if self.turns and self.layout.kind == IMAGE else None,
            "count": len(self.asked.x),
            "source": self.source,
            "own_labels": self.own_labels,
            "blank": self.blank,
            "per_page": PER_PAGE,
            "attacks": [{"name": name, "text": text} for name, text in tools.attacks.items()],
            "doubt": tools.doubt_about or None,
            "seconds": seconds,
            "notes": list(self.notes),
        }

    def inputs(self, start: int) -> dict[str, object]:
        """Some inputs as thumbnails: bytes, row by row, channels side by side."""
        stop = min(len(self.asked.x), start + PER_PAGE)
        x = self.asked.x[start:stop]
        predicted = self.network.judge.predict(x).tolist() if len(x) else []
        found = [
            {
                "position": start + i,
                "index": self.indices[start + i],
                "label": int(self.asked.labels[start + i]),
                "predicted": int(predicted[i]),
                **self.thumbnail(x[i]),
            }
            for i in range(len(x))
        ]
        return {"start": start, "inputs": found}

    def thumbnail(self, x: Tensor) -> dict[str, object]:
        """One input in few bytes."""
        low, high = self.span
        cells = self.cells(x)
        step = max(1, math.ceil(max(cells.shape[:2]) / THUMBNAIL))
        few = np.nan_to_num((cells[::step, ::step] - low) / (high - low))
        pixels = np.clip(np.rint(255 * few), 0, 255).astype(np.uint8)
        return {
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "pixels": base64.b64encode(pixels.tobytes()).decode(),
        }

    def cells(self, x: Tensor) -> np.ndarray:
        """One input as (height, width, channel); empty cells hold the least value drawn."""
        layout = self.layout
        flat = x.detach().to(torch.float32).flatten().numpy()
        full = np.full(layout.height * layout.width * layout.channels, self.span[0], np.float32)
        full[: len(flat)] = flat
        if layout.channels_last:
            return full.reshape(layout.height, layout.width, layout.channels)
        return np.moveaxis(full.reshape(layout.channels, layout.height, layout.width), 0, -1)
