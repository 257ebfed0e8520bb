"""Under which licence a file of a source tree stands: a guess, as an SPDX expression, for its metadata.

From the file's own ``SPDX-License-Identifier``, else from the nearest licence file above it inside the input. It is
a guess by the phrases that a licence is known by, not a legal finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

UNKNOWN = "unknown"  # there is a licence file, of words that are in no row below
_HEAD = 64 << 10  # bytes of a licence file that are looked at
_NAME = re.compile(r"(un)?licen[cs]e|copying", re.IGNORECASE)
_TEXT_SUFFIXES = {"", ".txt", ".md", ".rst"}
_OWN = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+() -]*[A-Za-z0-9.+)])")
_OWN_WITHIN = 4096  # characters at the beginning of a file

# The phrase that comes first in the text names the licence: the GPL's own text speaks of the LGPL and AGPL further
# down, the MPL's of the GPL. A GNU licence's text does not say "or later" of the work, so the narrower name is taken.
_PHRASES = (
    ("MIT", "permission is hereby granted, free of charge"),
    ("Apache-2.0", r"apache license,? (?:\(?the license\)? )?(?:version|v) ?2"),
    ("BSD-3-Clause", "redistribution and use in source and binary forms"),
    ("ISC", "permission to use, copy, modify, and(?:/or)? distribute this software for any purpose"),
    ("AGPL-3.0-only", "gnu affero general public license"),
    ("LGPL-3.0-only", "gnu lesser general public license version 3"),
    ("LGPL-2.1-only", "gnu lesser general public license version 2.1"),
    ("GPL-3.0-only", "gnu general public license version 3"),
    ("GPL-2.0-only", "gnu general public license version 2"),
    ("MPL-2.0", "mozilla public license,? version 2.0"),
    ("EPL-2.0", "eclipse public license - v 2.0"),
    ("BSL-1.0", "boost software license - version 1.0"),
    ("Zlib", "this software is provided 'as-is', without any express or implied warranty"),
    ("Unlicense", "this is free and unencumbered software released into the public domain"),
    ("CC0-1.0", "cc0 1.0 universal"),
    ("CC-BY-4.0", "attribution 4.0 international"),
    ("CC-BY-SA-4.0", "attribution-sharealike 4.0 international"),
    ("CC-BY-NC-4.0", "attribution-noncommercial 4.0 international"),
    ("CC-BY-NC-SA-4.0", "attribution-noncommercial-sharealike 4.0 international"),
    ("CC-BY-ND-4.0", "attribution-noderivatives 4.0 international"),
    ("CC-BY-NC-ND-4.0", "attribution-noncommercial-noderivatives 4.0 international"),
    ("PSF-2.0", "python software foundation license version 2"),
)


def is_licence_file(name: str) -> bool:
    """LICENSE, COPYING.txt, LICENSE-MIT, COPYING.LESSER; not license.py or licenses.html."""
    stem, dot, suffix = name.rpartition(".")
    if dot and dot + suffix.lower() in _TEXT_SUFFIXES:
        name = stem
    elif dot and suffix != suffix.upper():
        return False
    found = _NAME.match(name)
    return found is not None and name[found.end() :][:1] in ("", "-", "_", ".")


def licence_of(text: str) -> str:
    """SPDX identifier of a licence text, or ``unknown``."""
    plain = " ".join(re.sub(r"[\"“”*#_=>]", " ", text.lower()).split())
    found = [(match.start(), name) for name, phrase in _PHRASES if (match := re.search(phrase, plain))]
    if not found:
        return UNKNOWN
    name = min(found)[1]
    if name == "BSD-3-Clause" and "neither the name" not in plain:
        return "BSD-2-Clause"
    if name == "BSD-3-Clause" and "all advertising materials" in plain:
        return "BSD-4-Clause"
    if name == "ISC" and "above copyright notice" not in plain:
        return "0BSD"
    return name


def licence_of_folder(files: Sequence[Path]) -> str:
    """Of the licence files of one folder. Of several, all are taken to hold: the cautious reading."""
    names = set()
    for path in files:
        try:
            with path.open("rb") as file:
                names.add(licence_of(file.read(_HEAD).decode("utf-8", "replace")))
        except OSError:
            names.add(UNKNOWN)
    return " AND ".join(sorted(names))


def own_licence(text: str) -> str:
    """What a source file says of itself in its head, or nothing."""
    found = _OWN.search(text[:_OWN_WITHIN])
    return found.group(1) if found else ""


def allowed(expression: str, licences: Iterable[str]) -> bool:
    """Whether an expression of AND and OR can be met with these licences. What is not known cannot."""
    known = set(licences)
    plain = expression.replace("(", " ").replace(")", " ")
    return any(
        all(term.strip().split(" WITH ")[0] in known for term in choice.split(" AND "))
        for choice in plain.split(" OR ")
    )
