"""The lineage of a run as a drawing: boxes in columns, from what was read to what was made."""

from __future__ import annotations

from html import escape

from fledge.report.collect import Artefact, Run

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 106, 42, 30, 18, 6
LANE = 12  # height of an arc for each column that it spans


def edges(run: Run) -> list[tuple[str, str]]:
    """(made from, made) pairs between the run's artefacts, by where the inputs in the manifests lay."""
    names = {artefact.name for artefact in run.artefacts}
    found: list[tuple[str, str]] = []
    for artefact in run.artefacts:
        for path in input_paths(artefact):
            parts = path.replace("\\", "/").split("/")
            # The nearest folder of the path that is an artefact of this run; the run may have been moved since.
            owner = next((part for part in reversed(parts) if part in names and part != artefact.name), None)
            if owner is not None and (owner, artefact.name) not in found:
                found.append((owner, artefact.name))
    return found


def outside(run: Run) -> dict[str, list[str]]:
    """Inputs of each artefact that are no artefact of this run."""
    names = {artefact.name for artefact in run.artefacts}
    result: dict[str, list[str]] = {}
    for artefact in run.artefacts:
        foreign = [p for p in input_paths(artefact) if not names & set(p.replace("\\", "/").split("/"))]
        if foreign:
            result[artefact.name] = foreign
    return result


def input_paths(artefact: Artefact) -> list[str]:
    paths = artefact.manifest.get("paths", {})
    return [str(p) for at in paths.values() for p in ([at] if isinstance(at, str) else at)]


def columns(names: list[str], pairs: list[tuple[str, str]]) -> list[list[str]]:
    """Names by depth: each one column right of the last thing that it was made from."""
    before: dict[str, list[str]] = {name: [a for a, b in pairs if b == name] for name in names}
    depth: dict[str, int] = {}
    for name in names:  # in the order of the run: what something was made from comes first
        depth[name] = 1 + max((depth.get(other, -1) for other in before[name]), default=-1)
    return [[n for n in names if depth[n] == level] for level in range(max(depth.values(), default=-1) + 1)]


def draw(run: Run) -> str:
    """An ``<svg>`` element. All text in it is escaped."""
    pairs = edges(run)
    grid = columns([artefact.name for artefact in run.artefacts], pairs)
    if not grid:
        return ""
    stage = {artefact.name: artefact.stage for artefact in run.artefacts}
    level = {name: i for i, column in enumerate(grid) for name in column}
    rows = max(len(column) for column in grid)
    longest = max((level[b] - level[a] for a, b in pairs), default=0)
    arcs = LANE * longest if longest > 1 else 0  # room above and below for what skips columns
    height = rows * (BOX_HEIGHT + GAP_Y) - GAP_Y + 2 * (MARGIN + arcs)
    place: dict[str, tuple[float, float]] = {}
    for i, column in enumerate(grid):
        top = (height - len(column) * (BOX_HEIGHT + GAP_Y) + GAP_Y) / 2
        for j, name in enumerate(column):
            place[name] = (MARGIN + i * (BOX_WIDTH + GAP_X), top + j * (BOX_HEIGHT + GAP_Y))
    width = len(grid) * (BOX_WIDTH + GAP_X) - GAP_X + 2 * MARGIN
    parts = [f'<svg viewBox="0 0 {width} {height:.0f}" width="{width}" class="graph" role="img">']
    parts += [_edge(place[a], place[b], level[b] - level[a], height / 2) for a, b in pairs]
    for name, (x, y) in place.items():
        parts.append(
            f'<g><rect x="{x}" y="{y:.1f}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8"/>'
            f'<text x="{x + 10}" y="{y + 18:.1f}" class="name">{escape(_cut(name))}</text>'
            f'<text x="{x + 10}" y="{y + 33:.1f}" class="kind">{escape(_cut(stage[name]))}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def _edge(start: tuple[float, float], end: tuple[float, float], span: int, middle: float) -> str:
    """To the next column a line from side to side; further, an arc over the boxes between, or under them."""
    if span <= 1:
        x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT / 2
        x2, y2 = end[0], end[1] + BOX_HEIGHT / 2
        half = (x2 - x1) / 2
        return f'<path d="M{x1},{y1:.1f} C{x1 + half},{y1:.1f} {x2 - half},{y2:.1f} {x2},{y2:.1f}"/>'
    over = end[1] + BOX_HEIGHT / 2 <= middle + 1
    side = 0 if over else BOX_HEIGHT
    x1, y1 = start[0] + BOX_WIDTH * 0.7, start[1] + side
    x2, y2 = end[0] + BOX_WIDTH * 0.3, end[1] + side
    far = (min(y1, y2) - LANE * span * 1.3) if over else (max(y1, y2) + LANE * span * 1.3)
    return f'<path d="M{x1:.1f},{y1:.1f} C{x1:.1f},{far:.1f} {x2:.1f},{far:.1f} {x2:.1f},{y2:.1f}"/>'


def _cut(text: str, length: int = 13) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
