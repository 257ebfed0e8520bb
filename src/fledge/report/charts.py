"""Curves and histograms as inline SVG. Colours are those of the page (CSS variables), so that they follow its light or
dark theme."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Colours that stand for the page's while matplotlib draws, and what they become.
_INK, _ACCENT, _LINE = "#010203", "#020304", "#030405"
_PAGE = {_INK: "currentColor", _ACCENT: "var(--accent)", _LINE: "var(--line)"}
POINTS = 400  # more are averaged in bins

# Keys in the order in which they are shown; others follow by name. What is not drawn: the axes, and what never changes.
_ORDER = (
    "loss", "nll", "bits_per_byte", "reward", "reward_best", "reward_worst", "pairs", "groups_with_spread", "accuracy",
    "held_out_accuracy", "margin", "logp_chosen", "logp_rejected", "kl", "entropy", "answer_tokens", "cut_off",
    "value_explained", "lr", "grad_norm", "tokens_per_second",
)  # fmt: skip
_AXES = {"step", "tokens", "seconds", "epoch", "batch_tokens", "trained_tokens"}


@dataclass(frozen=True)
class Chart:
    """``svg`` is markup of ours: a drawing of numbers under a title."""

    key: str
    title: str
    svg: str
    last: float


def series(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Key -> (steps, values) of every numeric key, finite values only, in the order of showing."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for number, row in enumerate(rows, 1):
        step = row.get("step", number)
        if not _is_number(step):
            continue
        for key, value in row.items():
            if key not in _AXES and _is_number(value):
                steps, values = found.setdefault(key, ([], []))
                steps.append(float(step))
                values.append(float(value))

    def rank(key: str) -> tuple[int, str]:
        hits = [place for place, name in enumerate(_ORDER) if key == name or key.endswith(f"/{name}")]
        return (hits[0] if hits else len(_ORDER), key)

    return {key: found[key] for key in sorted(found, key=rank)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def charts(rows: Sequence[Mapping[str, Any]], limit: int = 16) -> tuple[list[Chart], list[str]]:
    """Charts of the rows' numeric keys, and the keys that are not drawn: constant, or beyond the limit.

    Keys ``NAME_bin_X``, the share of what lies from X up to the next X, are drawn together, as means over the steps.
    """
    drawn: list[Chart] = []
    left: list[str] = []
    seen: list[tuple[list[float], list[float]]] = []
    bins: dict[str, dict[str, float]] = {}
    for key, (steps, values) in series(rows).items():
        name, binned, begins = key.partition("_bin_")
        if binned:
            bins.setdefault(name, {})[begins] = math.fsum(values) / len(values)
            continue
        if (steps, values) in seen:
            continue  # an objective of one term: its loss under another name
        seen.append((steps, values))
        if len(values) < 2 or (max(values) == min(values) and key not in _ORDER) or len(drawn) >= limit:
            left.append(f"{key} = {values[-1]:.4g}" if max(values) == min(values) else key)
        else:
            drawn.append(Chart(key, _title(key), line(steps, values, key), values[-1]))
    for name, shares in bins.items():
        drawn.append(Chart(name, f"{_title(name)}: share from ...", bars(shares, name), max(shares.values())))
    return drawn, left


def line(steps: Sequence[float], values: Sequence[float], key: str) -> str:
    """One curve, with a smoothed one above where there are many points. Returns an ``<svg>`` element."""
    steps, values = _binned(list(steps), list(values))
    smooth = _smoothed(values) if len(values) >= 40 and key not in {"lr"} else None

    def draw(axes: Any) -> None:
        axes.plot(
            steps, values, color=_ACCENT, linewidth=1.5 if smooth is None else 0.7,
            alpha=1.0 if smooth is None else 0.32, marker="o" if len(values) <= 30 else None, markersize=2.6,
        )  # fmt: skip
        if smooth is not None:
            axes.plot(steps, smooth, color=_ACCENT, linewidth=1.7)
        axes.margins(x=0.01)
        axes.locator_params(axis="x", nbins=5, integer=True)

    return _drawn(draw, key)


def curves(
    lines: Sequence[tuple[Sequence[float], Sequence[float]]], key: str, diagonal: bool = False, log: bool = False
) -> str:
    """The first of several curves in the accent's colour, the others thin; ``diagonal``: with the line y = x, dashed;
    ``log``: the horizontal axis by powers of 2. Returns an ``<svg>`` element."""

    def draw(axes: Any) -> None:
        for place, (x, y) in enumerate(lines):
            colour, width = (_INK, 0.8) if place else (_ACCENT, 1.7)
            axes.plot(x, y, color=colour, linewidth=width, marker="o", markersize=2.6)
        if diagonal:
            ends = [min(lines[0][0]), max(lines[0][0])]
            axes.plot(ends, ends, color=_INK, linewidth=0.8, linestyle=(0, (4, 2)))
        if log:
            axes.set_xscale("log", base=2)
            axes.set_xticks(lines[0][0])
        axes.margins(x=0.03)

    return _drawn(draw, key)


def histogram(values: Any, key: str, thresholds: Sequence[float] = (), bins: int = 40) -> str:
    """How often values occur, with dashed lines at thresholds. Beyond the 0.5% at each end, values are counted in the
    outermost bins; a threshold further out is drawn at the edge. Returns an ``<svg>`` element."""
    import numpy as np

    low, high = np.quantile(values, (0.005, 0.995)) if len(values) else (0.0, 1.0)
    low, high = min(low, *thresholds, high), max(high, *thresholds, low)
    high = high if high > low else low + 1
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))

    def draw(axes: Any) -> None:
        axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=_ACCENT, alpha=0.6, linewidth=0)
        for threshold in thresholds:
            axes.axvline(threshold, color=_INK, linewidth=1.2, linestyle=(0, (4, 2)))
        axes.margins(x=0.02)
        axes.locator_params(axis="x", nbins=5)

    return _drawn(draw, key)


def bars(shares: Mapping[str, float], key: str) -> str:
    """One bar for each bin, in the order of where it begins. Returns an ``<svg>`` element."""
    names = sorted(shares, key=float)

    def draw(axes: Any) -> None:
        axes.bar(range(len(names)), [shares[name] for name in names], color=_ACCENT, alpha=0.6, linewidth=0)

    return _drawn(draw, key, names)


def _drawn(draw: Callable[[Any], None], key: str, places: Sequence[str] = ()) -> str:
    """``places``: names of 0, 1, 2 ... on the horizontal axis, where it has names."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": key, "font.size": 8.5, "axes.edgecolor": _LINE, "text.color": _INK,
        "axes.labelcolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "grid.color": _LINE, "axes.linewidth": 0.8,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(3.5, 2.05))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.155, 0.125, 0.825, 0.835))
        axes.grid(axis="y", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0, pad=4)
        draw(axes)
        axes.locator_params(axis="y", nbins=5)
        axes.yaxis.set_major_formatter(_tick)
        if places:
            axes.set_xticks(range(len(places)), [f"{float(place):g}" for place in places])
        else:
            axes.xaxis.set_major_formatter(_tick)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue(), key)


def _tick(value: float, position: float) -> str:
    """``0.003`` as 3e-3, ``20000`` as 20k: short, and nothing to add in the corner of the chart."""
    if value and abs(value) < 0.01:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value / 1e6:g}M" if abs(value) >= 1e6 else f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:.5g}"


def _inline(text: str, key: str) -> str:
    """The ``<svg>`` element alone, in the page's colours and font, with ids that do not meet those of other charts."""
    text = text[text.index("<svg") :]
    for ours, page in _PAGE.items():
        text = text.replace(ours, page)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img" class="chart">', text, count=1)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.S)
    tag = re.sub(r"\W", "-", key)
    text = re.sub(r'\bid="', f'id="{tag}-', text)
    text = re.sub(r'(xlink:href|href)="#', f'href="#{tag}-', text)
    return re.sub(r"url\(#", f"url(#{tag}-", text)


def _binned(steps: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    if len(values) <= POINTS:
        return steps, values
    width = len(values) / POINTS
    cuts = [round(i * width) for i in range(POINTS + 1)]
    pairs = list(itertools.pairwise(cuts))
    return [sum(steps[a:b]) / (b - a) for a, b in pairs], [sum(values[a:b]) / (b - a) for a, b in pairs]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Exponential mean over about a twentieth of the curve, corrected for its start."""
    keep = 1 - 1 / max(4.0, len(values) / 20)
    total = weight = 0.0
    result = []
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        result.append(total / weight)
    return result


def _title(key: str) -> str:
    names = {"lr": "learning rate", "grad_norm": "gradient norm", "tokens_per_second": "tokens per second", "kl": "KL"}
    return names.get(key, key.replace("_", " "))
