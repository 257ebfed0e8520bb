"""The inner side of the sandbox: a small process that runs code of strangers, and what confines it.

It is started with `python -I -S` and an empty environment, and imports nothing but the standard library and itself.

- `confine`: namespaces, Landlock, seccomp, limits, straight from the kernel through ctypes;
- `wire`: plain data between the candidate and its tests;
- `cell`: what runs inside, once as candidate, once as tests;
- `rooms`: the folder that a job may write in;
- `warden`: forks cells, watches time and output, reports.
"""

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")  # that code may open
