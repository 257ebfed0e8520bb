"""Confinement of the calling process by the Linux kernel, through ctypes: no system library, no privileges.

Every function either does what it says or raises OSError: nothing is left half confined in silence.
Sources: landlock(7), seccomp(2), user_namespaces(7), pivot_root(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_THREAD = 0x00010000
_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user mnt pid net ipc uts
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT = 1, 2, 4, 8, 32
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_RELATIME = 4096, 16384, 1 << 18, 1 << 21
_MNT_DETACH = 2

# Numbers of system calls (x86_64, aarch64). None: that machine has none, its C library uses a newer one.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "open": (2, None), "close": (3, 57), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "access": (21, None), "pipe": (22, None), "select": (23, None), "sched_yield": (24, 124), "mremap": (25, 216),
    "msync": (26, 227), "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None), "pause": (34, None),
    "nanosleep": (35, 101), "getitimer": (36, 102), "alarm": (37, None), "setitimer": (38, 103), "getpid": (39, 172),
    "exit": (60, 93), "uname": (63, 160), "fsync": (74, 82), "fdatasync": (75, 83),
    "truncate": (76, 45), "ftruncate": (77, 46), "getdents": (78, None), "getcwd": (79, 17), "chdir": (80, 49),
    "rename": (82, None), "mkdir": (83, None), "rmdir": (84, None), "unlink": (87, None), "readlink": (89, None),
    "umask": (95, 166), "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165),
    "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "getpgrp": (111, None), "sigaltstack": (131, 132),
    "gettid": (186, 178), "time": (201, None), "futex": (202, 98), "sched_getaffinity": (204, 123),
    "getdents64": (217, 61), "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "openat": (257, 56), "mkdirat": (258, 34),
    "newfstatat": (262, 79), "unlinkat": (263, 35), "renameat": (264, 38), "readlinkat": (267, 78),
    "faccessat": (269, 48), "pselect6": (270, 72), "ppoll": (271, 73), "set_robust_list": (273, 99),
    "dup3": (292, 24), "pipe2": (293, 59), "renameat2": (316, 276), "getrandom": (318, 278),
    "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293), "faccessat2": (439, 439),
}  # fmt: skip
_CLONE, _CLONE3, _IOCTL, _TGKILL, _PRLIMIT, _PIVOT = (56, 220), (435, 435), (16, 29), (234, 131), (302, 261), (155, 41)
_FCNTL = (72, 25)
_HARMLESS_IOCTLS = (0x5401, 0x5450, 0x5451, 0x5413)  # TCGETS, FIONCLEX, FIOCLEX, TIOCGWINSZ
# Copies, flags and locks. Not F_SETOWN and F_SETSIG: a pipe whose owner is another process sends it any signal when it
# is written to, without kill(2). Not F_NOTIFY, which watches folders.
_HARMLESS_FCNTLS = (0, 1, 2, 3, 4, 5, 6, 7, 1030)
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446


def machine() -> int:
    """Column of the tables above. Raises OSError on machines that they do not cover."""
    try:
        return list(_AUDIT_ARCH).index(platform.machine())
    except ValueError:
        raise OSError(f"no table of system calls for {platform.machine()}") from None


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(what: str, number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *values), what)


def _prctl(what: str, option: int, *values: int) -> int:
    four = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(ctypes.c_int(option), *four), what)


# ---- limits and privileges -------------------------------------------------------------------------------------------


def limit(memory: int, cpu_seconds: int, file_bytes: int, processes: int, files: int) -> None:
    """Hard limits on address space and files (bytes), processor time, tasks, open files; no core dumps."""
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def die_with_parent() -> None:
    """SIGKILL when the parent ends (the parent must have a single thread)."""
    _prctl("prctl(PDEATHSIG)", 1, 9)


def drop_privileges() -> None:
    """No new privileges ever, an empty bounding set, no capabilities: root becomes an ordinary user."""
    _prctl("prctl(NO_NEW_PRIVS)", 38, 1)
    for capability in range(64):
        if _libc.prctl(24, ctypes.c_ulong(capability), 0, 0, 0) < 0:  # fails past the last one, or unprivileged
            break
    header = ctypes.create_string_buffer(struct.pack("II", 0x20080522, 0))
    nothing = ctypes.create_string_buffer(struct.pack("6I", 0, 0, 0, 0, 0, 0))
    _check(_libc.capset(header, nothing), "capset")


# ---- seccomp ---------------------------------------------------------------------------------------------------------

_LD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050000 + 38


def _filter(column: int, own_pid: int) -> bytes:
    """The BPF program: a list of what is allowed. All else fails with EPERM, another architecture's calls kill."""
    code: list[tuple[int, int, int, int]] = [
        (_LD, 0, 0, 4),
        (_JEQ, 1, 0, _AUDIT_ARCH[platform.machine()]),
        (_RET, 0, 0, _KILL),
        (_LD, 0, 0, 0),
    ]
    for numbers in _CALLS.values():
        if (number := numbers[column]) is not None:
            code += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ALLOW)]
    code += [(_JEQ, 0, 1, _CLONE3[column]), (_RET, 0, 0, _ENOSYS)]  # its arguments cannot be read here: clone is used
    for call, argument, test, values in (
        (_CLONE, 0, _JSET, (CLONE_THREAD,)),  # threads, not processes
        (_IOCTL, 1, _JEQ, _HARMLESS_IOCTLS),
        (_FCNTL, 1, _JEQ, _HARMLESS_FCNTLS),
        (_TGKILL, 0, _JEQ, (own_pid,)),  # abort()
        (_PRLIMIT, 0, _JEQ, (0,)),
    ):
        code += [(_JEQ, 0, 2 + 2 * len(values), call[column]), (_LD, 0, 0, 16 + 8 * argument)]
        for value in values:
            code += [(test, 0, 1, value), (_RET, 0, 0, _ALLOW)]
        code += [(_RET, 0, 0, _EPERM)]
    code += [(_RET, 0, 0, _EPERM)]
    return b"".join(struct.pack("HBBI", *step) for step in code)


def restrict_calls() -> None:
    """Allow only the system calls of a single-process program that reads and writes files: no new processes, no exec,
    no sockets, no signals to others, no tracing, no mounts, no keys, no kernel interfaces."""
    program = _filter(machine(), os.getpid())
    steps = ctypes.create_string_buffer(program, len(program))
    holder = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(steps)))
    _prctl("prctl(NO_NEW_PRIVS)", 38, 1)
    _prctl("prctl(SECCOMP)", 22, 2, ctypes.addressof(holder))


# ---- Landlock --------------------------------------------------------------------------------------------------------

_READ = 1 << 2 | 1 << 3
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15
_WRITE = _READ | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 14


def landlock_version() -> int:
    """Version of Landlock's interface; 0 where the kernel has none."""
    return max(0, int(_libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_long(0), ctypes.c_long(1))))


def restrict_files(readable: Iterable[str], writable: Iterable[str]) -> bool:
    """Allow reading beneath `readable`, reading and writing beneath `writable`, no file anywhere else, no TCP.

    False where the kernel has no Landlock that can forbid to truncate files (version 3, Linux 6.2): then nothing was
    done.
    """
    version = landlock_version()
    if version < 3:
        return False
    known = {3: 15, 4: 15}.get(version, 16)
    handled = (1 << known) - 1
    attributes = struct.pack("QQQ", handled, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    buffer = ctypes.create_string_buffer(attributes[:size], size)
    ruleset = _syscall("landlock_create_ruleset", _LANDLOCK_CREATE, buffer, size, 0)
    try:
        for paths, rights in ((readable, _READ), (writable, _WRITE)):
            for path in paths:
                _allow(ruleset, path, rights & handled)
        _prctl("prctl(NO_NEW_PRIVS)", 38, 1)
        _syscall("landlock_restrict_self", _LANDLOCK_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)
    return True


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rights = rights if os.path.isdir(path) else rights & _FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, place), 12)
        _syscall("landlock_add_rule", _LANDLOCK_ADD, ruleset, 1, rule, 0)
    finally:
        os.close(place)


# ---- namespaces ------------------------------------------------------------------------------------------------------


def unshare_all() -> None:
    """New user, mount, process, network, IPC and host-name namespaces. The next fork is process 1 of the new ones."""
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(_NAMESPACES), "unshare")
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    arguments = [None if text is None else text.encode() for text in (source, target, kind)]
    result = _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {target}")


def new_root(base: str, readable: Iterable[str], devices: Iterable[str]) -> None:
    """Make an empty file system at `base` the root, with the `readable` paths bound into it, read-only, and the
    `devices`. Only in namespaces of one's own."""
    mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    mount("tmpfs", base, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=256k,mode=755")
    for path in readable:
        _bind(base, path, read_only=True)
    for path in devices:
        _bind(base, path, read_only=False)
    os.makedirs(f"{base}/tmp", exist_ok=True)
    os.makedirs(f"{base}/.old")
    os.chdir(base)
    _syscall("pivot_root", _PIVOT[machine()], *(ctypes.create_string_buffer(name) for name in (b".", b".old")))
    os.chdir("/")
    _check(_libc.umount2(b"/.old", _MNT_DETACH), "umount")
    os.rmdir("/.old")
    mount("none", "/", None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV)


def _bind(base: str, path: str, read_only: bool) -> None:
    if not os.path.exists(path):
        return
    target = base + path
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    mount(path, target, None, _MS_BIND | _MS_REC)
    if read_only:
        # Flags of the source are locked in a namespace of ours: leaving one out would be refused.
        flags = os.statvfs(path).f_flag & (_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
        times = os.statvfs(path).f_flag >> 10 & 7  # ST_NOATIME, ST_NODIRATIME, ST_RELATIME stand 10 bits lower than MS_
        kept = (1 << 10 if times & 1 else 0) | (1 << 11 if times & 2 else 0) | (_MS_RELATIME if times & 4 else 0)
        mount("none", target, None, _MS_REMOUNT | _MS_BIND | _MS_RDONLY | flags | kept)


def fresh_tmp(path: str, size: int) -> None:
    """An empty file system of at most `size` bytes at `path`, in place of the one that was there."""
    while _libc.umount2(path.encode(), _MNT_DETACH) == 0:
        pass
    mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, f"size={size},nr_inodes=512,mode=700")
