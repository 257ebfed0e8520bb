"""What this machine can confine code with, for the tests of the sandbox."""

from __future__ import annotations

import pytest

from fledge.reward import sandbox


def available() -> tuple[list[str], dict[str, str]]:
    """The kinds that start here, and why the others do not. One that starts but is not tight fails the tests at once.

    Those that need no Landlock come once more without it: so they stand on kernels before 6.2.
    """
    found, missing = [], {}
    for kind in (*sandbox.KINDS, *sandbox.ALONE):
        try:
            gaps = sandbox.probe(kind)
        except sandbox.SandboxUnavailable as problem:
            missing[kind] = str(problem)
            continue
        assert gaps == [], f"{kind} starts but is not tight: {gaps}"
        found.append(kind)
    return found, missing


KINDS, MISSING = available()


def every_kind() -> list[object]:
    """Parameters: the kind that is used here, the others in the long suite; what does not start skips and says why."""
    return [
        *(pytest.param(kind, marks=[pytest.mark.long] * (kind != KINDS[0])) for kind in KINDS),
        *(pytest.param(kind, marks=pytest.mark.skip(reason=f"{kind}: {why}")) for kind, why in MISSING.items()),
    ]
