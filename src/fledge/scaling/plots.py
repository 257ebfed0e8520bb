"""The picture of a mixture: whether the regression is to be trusted, and what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_FITTED, _JUDGED, _NATURAL, _FOUND = "#9aa5b1", "#0b6e99", "#c3cad2", "#0b6e99"


def draw(
    result: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], predicted: np.ndarray, apart: int, path: Path
) -> None:
    """Left: predicted against measured loss of every proxy. Right: natural and found shares, largest first."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {"svg.hashsalt": "mixture", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.6, max(3.6, 1.6 + 0.42 * len(result["names"]))), layout="constrained")
        FigureCanvasSVG(figure)
        left, right = figure.subplots(1, 2)
        _agreement(left, result, np.array([row["loss"] for row in rows]), predicted, apart)
        _shares(right, result)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _agreement(axes: Any, result: Mapping[str, Any], measured: np.ndarray, predicted: np.ndarray, apart: int) -> None:
    ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
    axes.plot(ends, ends, color="#d5dae0", linewidth=1, zorder=0)
    fitted, judged = slice(None, -apart), slice(-apart, None)
    axes.scatter(measured[fitted], predicted[fitted], s=16, color=_FITTED, label=f"fitted ({len(measured) - apart})")
    axes.scatter(measured[judged], predicted[judged], s=26, color=_JUDGED, label=f"not seen by the fit ({apart})")
    axes.scatter(measured[:1], predicted[:1], s=70, facecolors="none", edgecolors="black", label="natural mixture")
    low, high = result["spearman_interval"]
    axes.set_title(f"Spearman {result['spearman']:.2f} ({low:.2f} to {high:.2f}) where not seen", loc="left")
    axes.set_xlabel("measured loss of the proxy, bits per byte")
    axes.set_ylabel("predicted loss, bits per byte")
    axes.legend(frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)


def _shares(axes: Any, result: Mapping[str, Any]) -> None:
    natural, found = np.array(result["natural"]), np.array(result["found"])
    order = np.argsort(-np.maximum(natural, found), kind="stable")
    place = np.arange(len(order))
    axes.barh(place - 0.19, natural[order], 0.36, color=_NATURAL, label="natural")
    axes.barh(place + 0.19, found[order], 0.36, color=_FOUND, label="found")
    for at, value in zip([*(place - 0.19), *(place + 0.19)], [*natural[order], *found[order]], strict=True):
        axes.text(value + 0.01, at, f"{value:.1%}", va="center", fontsize=8)
    # a source's name is foreign text: matplotlib shall not read formulas in it
    axes.set_yticks(place, [str(result["names"][number])[:28].replace("$", r"\$") for number in order])
    axes.invert_yaxis()
    axes.set_xlim(0, min(1.12, float(max(natural.max(), found.max())) * 1.18))
    axes.set_title(f"share of the tokens, {result['axis']}", loc="left")
    axes.legend(frameon=False, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
