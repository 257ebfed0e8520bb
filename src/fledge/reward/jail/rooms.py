"""The folder that a job may write in: what is in it, and emptying it, whatever its owner did.

Code may build nests that are deeper than a path or a recursion can go, folders that nobody may list, and files that it
removes and keeps open. None of them may hide what it takes, nor stay for the next job.
"""

from __future__ import annotations

import os
import stat

DEPTH = 12  # of folders: names have 255 bytes at most, so every path stays below the 4,096 that a call takes
_ENTRY = 4096  # bytes that a file or a folder is counted as beside its content


def used(room: str, most: int) -> int:
    """Bytes in a room, `_ENTRY` for every file and folder included; `most` + 1 as soon as it is more than `most`, and
    for what cannot be measured: folders deeper than DEPTH, or that cannot be opened."""
    total, folders = 0, [(room, 0)]
    while folders:
        place, depth = folders.pop()
        try:
            for entry in _entries(place):
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # the code is at work meanwhile
                    continue
                total += _ENTRY + (0 if stat.S_ISDIR(found.st_mode) else found.st_blocks * 512)
                if stat.S_ISDIR(found.st_mode):
                    folders.append((entry.path, depth + 1))
                if total > most or depth >= DEPTH:
                    return most + 1
        except FileNotFoundError:
            continue
        except OSError:
            return most + 1
    return total


def _entries(place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as found:
            return list(found)
    except PermissionError:
        os.chmod(place, 0o700)
        with os.scandir(place) as found:
            return list(found)


def held(pid: int) -> int:
    """Bytes of files that a process has open and no folder names any more. 0 where /proc is not there."""
    total = 0
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            try:
                found = os.stat(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            total += found.st_blocks * 512 if stat.S_ISREG(found.st_mode) and not found.st_nlink else 0
    except OSError:
        pass
    return total


def empty(room: str) -> None:
    """Remove all that is in a folder. A nest is taken apart from the top: its folders are moved up, one by one, so no
    path grows long and nothing recurses. Raises OSError where something cannot be removed."""
    mark, moved = os.urandom(8).hex(), 0
    folders = [room]
    while folders:
        place = folders.pop()
        for entry in _entries(place):
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            if entry.stat(follow_symlinks=False).st_mode & 0o700 != 0o700:
                os.chmod(entry.path, 0o700)
            moved += 1
            target = os.path.join(room, f"{mark}-{moved}")
            os.rename(entry.path, target)
            folders.append(target)
        if place != room:
            os.rmdir(place)
