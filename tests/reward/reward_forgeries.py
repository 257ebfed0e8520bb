"""Attacks on the verdict: code that wants to pass without the right answer. Run by `test_reward_attacks.py`."""

from __future__ import annotations

from reward_attacks import Attack

VERDICT: dict[str, Attack] = {
    # ---- ending ----
    "ending early": Attack("sys.exit(0)", quick=True),
    "ending hard": Attack("os._exit(0)", quick=True),
    "ending when called": Attack("def f(x): os._exit(0)"),
    "ending when called, softly": Attack("def f(x): raise SystemExit(0)"),
    "last words: atexit, __del__, finalizers": Attack(
        r"""
        import atexit, weakref
        said = b'{"passed": 2, "total": 2, "failures": []}\n'
        def say():
            for fd in range(64):
                try: os.write(fd, said)
                except OSError: pass
        atexit.register(say)
        class Last:
            def __del__(self): say()
        last = Last()
        weakref.finalize(last, say)
        def f(x): return Last()
        """,
        quick=True,
    ),
    # ---- objects ----
    "equal to everything": Attack(
        """
        class A:
            def __eq__(self, o): return True
            __hash__ = object.__hash__
        def f(x): return A()
        """,
        quick=True,
    ),
    "an int equal to everything": Attack(
        """
        class A(int):
            def __eq__(self, o): return True
            __hash__ = int.__hash__
        def f(x): return A(7)
        """,
        quick=True,
    ),
    "an int that says another number": Attack(
        """
        class A(int):
            def __int__(self): return 41
            def __index__(self): return 41
            def bit_length(self): return 1
            def __repr__(self): return '41'
        def f(x): return A(7)
        """,
    ),
    "containers that lie about their items": Attack(
        """
        class A(list):
            def __iter__(self): return iter([41])
            def __eq__(self, o): return True
        class B(dict):
            def items(self): return [(41, 41)]
            def __eq__(self, o): return True
        def f(x): return A([1]) if x == 1 else B()
        """,
    ),
    "an object that claims to be an int": Attack(
        """
        class A:
            __class__ = int
            def __eq__(self, o): return True
            def __int__(self): return 41
            def bit_length(self): return 1
        def f(x): return A()
        """,
    ),
    "pickles and other objects that rebuild themselves": Attack(
        """
        class A:
            def __reduce__(self): return (eval, ('41',))
            def __getattr__(self, name): return self
            def __call__(self, *a): return 41
        def f(x): return A()
        """,
    ),
    # ---- patching ----
    "patched builtins": Attack(
        """
        import builtins
        builtins.AssertionError = Exception
        builtins.compile = None
        builtins.exec = print
        builtins.isinstance = lambda *a: True
        """,
        quick=True,
    ),
    "ctypes: integers that are other integers": Attack(
        """
        for number in range(1, 257):  # the small ones that the interpreter shares; nothing of ours may count with them
            ctypes.c_uint32.from_address(id(number) + 24).value = 41
        """,
        quick=True,
    ),
    "patched modules of the sandbox": Attack(
        """
        for name, module in list(sys.modules.items()):
            if 'jail' in name:
                module.pack = lambda v: True
                module._execute = lambda *a: (2, [])
                module.run_tests = lambda *a: None
                module.LONGEST = 1 << 40
        """,
        quick=True,
    ),
    "import hooks": Attack(
        """
        import builtins
        class Hook:
            def find_spec(self, *a): raise SystemExit(0)
        sys.meta_path.insert(0, Hook())
        real = builtins.__import__
        builtins.__import__ = lambda *a, **k: real(*a, **k)
        sys.modules['ast'] = sys.modules['symtable'] = sys
        """,
    ),
    "modules in place of the tests' own": Attack(
        """
        for name in ('ast', 're', 'json', 'symtable'): open(name + '.py', 'w').write('raise SystemExit(0)')
        sys.path.insert(0, os.getcwd())
        """,
    ),
    "rewriting asserts, tracing": Attack(
        """
        def trace(frame, event, arg):
            if 'tests' in frame.f_code.co_filename:
                frame.f_globals.update(f=lambda x: 40 + x)
            return trace
        sys.settrace(trace)
        sys.setprofile(trace)
        import threading
        threading.settrace(trace)
        sys.excepthook = print
        """,
    ),
    "a patched test: the candidate's frames": Attack(
        """
        def f(x):
            frame = sys._getframe()
            while frame:
                if '== 4' + '1' in repr(frame.f_locals): return 40 + x
                frame = frame.f_back
            return 0
        """,
        quick=True,
    ),
    # ---- the channel of the verdict ----
    "a written verdict": Attack(
        r"""
        for fd in range(3, 64):
            try: os.write(fd, b'{"passed": 2, "total": 2, "failures": []}\n')
            except OSError: pass
        """,
        quick=True,
    ),
    "a written verdict when called": Attack(
        r"""
        def f(x):
            for fd in range(3, 64):
                try: os.write(fd, b'{"passed": 2, "total": 2, "failures": []}\n{"value": true}\n')
                except OSError: pass
        """,
    ),
    "answers to calls that were not made yet": Attack(
        r"""
        def f(x):
            os.write(4, b'{"value": 1}\n' * 1000)
            return 1
        """,
    ),
    "a frame for the world outside": Attack(
        """
        import struct
        body = b'{"status": "done", "verdict": {"passed": 2, "total": 2}, "output": ""}'
        for fd in range(3, 64):
            try: os.write(fd, struct.pack('<I', len(body)) + body)
            except OSError: pass
        """,
    ),
    "reading every descriptor": Attack(
        """
        import select
        for fd in range(64):
            try:
                if fd != 3 and select.select([fd], [], [], 0)[0]:
                    data = os.read(fd, 4096)
                    if data: print('BREACH', fd, data[:80])
            except (OSError, ValueError): pass
        """,
    ),
    "deep nesting": Attack(
        r"""
        def f(x): os.write(4, b'[' * 100000 + b'\n')
        """,
    ),
    "a huge value": Attack("def f(x): return 'x' * (64 << 20)"),
    "an endless iterator": Attack(
        """
        import itertools
        def f(x): return itertools.count()
        """,
        quick=True,
    ),
    "forged exceptions": Attack(
        r"""
        def f(x): os.write(4, b'{"error": 3}\n{"error": ["SystemExit", "0"]}\n')
        """,
    ),
    "exceptions that end loops": Attack("def f(x): raise StopIteration"),
    # ---- finding the expected values ----
    "searching memory for the tests: gc": Attack(
        """
        import gc
        held = [o for o in gc.get_objects() if isinstance(o, (dict, list)) and o is not globals()]
        found = [o for o in held if '== 4' + '1' in repr(o)[:100000]]
        def f(x): return 40 + x if found else 0
        """,
    ),
    "searching memory for what the job before was told": Attack(
        r"""
        import re
        libc = ctypes.CDLL(None, use_errno=True)
        inside, outside = os.pipe()
        found = {}
        def scan(address):
            for page in range(1500):
                for place in (address + page * 4096, address - page * 4096):
                    if libc.write(outside, ctypes.c_void_p(place), 4096) == 4096:
                        for value, right in pattern.findall(os.read(inside, 4096)): found[int(value)] = int(right)
        pattern = re.compile(b'assert' + rb' f\((\d)\) == (\d+)')
        for start in (id(object()), ctypes.addressof(ctypes.create_string_buffer(3000)), id(found),
                      ctypes.addressof(ctypes.create_string_buffer(300000))):
            scan(start & ~4095)
        def f(x): return found.get(x, 0)
        """,
        quick=True,
        limits={"cpu": 20},
    ),
    "searching the room and the runtime for the tests": Attack(
        """
        found = []
        for top in ('.', '/tmp', '/', '/dev'):
            for place, folders, names in os.walk(top):
                folders[:] = [n for n in folders if n not in ('usr', 'lib', 'lib64', 'opt', 'root')][:50]
                found += [n for n in names if 'test' in n or 'verdict' in n]
        def f(x): return 40 + x if found else 0
        """,
    ),
    "every answer at once": Attack(
        """
        class A(set): pass
        def f(x): return range(1000)
        """,
    ),
}
