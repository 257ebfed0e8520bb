"""What runs inside the sandbox: the candidate (code of a model), and its tests, in two processes.

The tests' process never executes the candidate's code: it sends arguments and gets plain values back (`wire`). It alone
holds the pipe on which the verdict is reported, and was forked after the candidate, so the candidate has neither that
pipe nor the tests in its memory. Ending early, patching builtins, or returning objects that compare equal to
everything can therefore fail a test, but not pass one. Of the names that the candidate announces the tests see only
those that mean nothing else to them: a function of its own called `abs` or `set` would otherwise judge it.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import symtable
import sys
import traceback
from typing import Any

from .wire import Line, Unsendable, pack, unpack

CALLS_IN, CALLS_OUT, VERDICT = 3, 4, 5
NAME = "__candidate__"


def run_program(code: str) -> None:
    """Execute code as a script. What it raises is written to standard error, as Python does."""
    try:
        exec(compile(code, "reply.py", "exec"), {"__name__": "__main__", "__builtins__": builtins})
    except SystemExit:
        raise
    except BaseException as problem:
        inner = problem.__traceback__.tb_next if problem.__traceback__ else None
        traceback.print_exception(type(problem), problem, inner, limit=-8)
        sys.exit(1)


def run_candidate(code: str) -> None:
    """Execute code, then serve calls of its functions until the other side closes."""
    line = Line(CALLS_IN, CALLS_OUT)
    names: dict[str, Any] = {"__name__": NAME, "__builtins__": builtins}
    try:
        exec(compile(code, "reply.py", "exec"), names)
    except BaseException as problem:
        _flush()
        line.send({"error": _error(problem), "functions": []})
        return
    _flush()
    line.send({"functions": [name for name, value in names.items() if callable(value) and not name.startswith("__")]})
    while True:
        try:
            request = line.receive()
        except EOFError:
            return
        answer = _answer(names, request)
        _flush()
        line.send(answer)


def _flush() -> None:
    """The cell is killed, not ended, when its tests are done: what was printed must be out by then."""
    with contextlib.suppress(BaseException):
        sys.stdout.flush()


def _answer(names: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    try:
        arguments, named = unpack(request["args"]), unpack(request["kwargs"])
        reply = {"value": pack(names[request["name"]](*arguments, **named))}
        changed = pack(arguments)
        if changed != request["args"]:
            reply["args"] = changed
        return reply
    except BaseException as problem:
        return {"error": _error(problem)}


def _error(problem: BaseException) -> list[str]:
    text = ""
    with contextlib.suppress(BaseException):
        text = str(problem)[:300]
    return [type(problem).__name__, text]


class CandidateError(Exception):
    """The candidate failed in a way that has no Python exception of its own."""


class _Proxy:
    """A function of the candidate, called over the line."""

    def __init__(self, line: Line, name: str) -> None:
        self._line, self.__name__ = line, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            self._line.send({"name": self.__name__, "args": pack(args), "kwargs": pack(kwargs)})
            reply = self._line.receive()
            if "error" in reply:
                raise _rebuilt(*reply["error"])
            value = unpack(reply["value"])
            changed = unpack(reply["args"]) if "args" in reply else ()
        except (EOFError, OSError):
            raise CandidateError("the code ended itself") from None
        except Unsendable:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            if isinstance(problem, _Rebuilt):
                raise
            raise CandidateError(f"the code sent no value: {problem}") from None
        for mine, theirs in zip(args, changed, strict=False):
            _update(mine, theirs)
        return value


class _Rebuilt(Exception):
    """Marks exceptions that the candidate raised, so that they are not mistaken for ours."""


def _rebuilt(name: str, text: str) -> Exception:
    kind = getattr(builtins, name, None) if isinstance(name, str) else None
    # StopIteration would end a loop of the tests over `map(f, ...)` before its first comparison.
    quiet = (StopIteration, StopAsyncIteration)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, quiet):
        with contextlib.suppress(TypeError):
            marked = type(kind.__name__, (_Rebuilt, kind), {})
            return marked(str(text))
    return CandidateError(f"{name}: {text}")


def _update(mine: Any, theirs: Any) -> None:
    """Changes that the code made in its arguments are made in those of the test."""
    if type(mine) is not type(theirs):
        return
    if isinstance(mine, list):
        mine[:] = theirs
    elif isinstance(mine, dict | set):
        mine.clear()
        mine.update(theirs)


def run_tests(tests: str, entry: str) -> None:
    """Execute the tests, statement by statement, and report `{"passed", "total", "failures"}` on the verdict's pipe.

    Each `assert` at the top level is a test; where there is none, the whole text is one.
    """
    verdict = Line(-1, VERDICT)
    try:
        tree = ast.parse(tests, "tests.py")
        own = _bound(symtable.symtable(tests, "tests.py", "exec"))
    except (SyntaxError, ValueError, RecursionError) as problem:
        verdict.send({"bad_tests": f"the tests are no Python: {problem}"})
        return
    total = sum(isinstance(statement, ast.Assert) for statement in tree.body) or 1
    names, problem_text = _namespace(entry, own)
    if problem_text:
        verdict.send({"passed": 0, "total": total, "failures": [problem_text]})
        return
    passed, failures = _execute(tree, names)
    verdict.send({"passed": passed, "total": total, "failures": [text[:300] for text in failures[:8]]})


def _bound(table: symtable.SymbolTable) -> set[str]:
    """Names that the tests import, define or assign in their module, also where only a branch or a function does."""
    top = table.get_type() == "module"
    names = set()
    for symbol in table.get_symbols():
        if (symbol.is_assigned() or symbol.is_imported()) and (top or symbol.is_declared_global()):
            names.add(symbol.get_name())
    return names.union(*map(_bound, table.get_children()))


def _namespace(entry: str, own: set[str]) -> tuple[dict[str, Any], str]:
    """The globals of the tests: the entry point, and the candidate's other functions where their names are free."""
    line = Line(CALLS_IN, CALLS_OUT)
    try:
        ready = line.receive()
        if "error" in ready:
            return {}, f"the code raised {': '.join(map(str, ready['error']))}"
        functions = [str(name) for name in ready["functions"]]
    except (EOFError, OSError):
        return {}, "the code ended itself before its functions were called"
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}, "the code broke the line to its tests"
    if entry not in functions:
        return {}, f"no function {entry!r} in the code"
    taken = own | vars(builtins).keys()
    free = [name for name in functions if name == entry or not (name in taken or name.startswith("__"))]
    names: dict[str, Any] = {name: _Proxy(line, name) for name in free}
    return names | {"__name__": "__tests__", "__builtins__": builtins}, ""


def _execute(tree: ast.Module, names: dict[str, Any]) -> tuple[int, list[str]]:
    passed, failures = 0, []
    asserts = any(isinstance(statement, ast.Assert) for statement in tree.body)
    for statement in tree.body:
        is_test = isinstance(statement, ast.Assert)
        try:
            exec(compile(ast.Module([statement], []), "tests.py", "exec"), names)
        except BaseException as problem:
            kind, text = _error(problem)
            failures.append(f"line {statement.lineno}: {ast.unparse(statement)[:120]}: {kind} {text}".strip())
            if not is_test:
                return 0, failures  # what follows may depend on it
        else:
            passed += is_test
    return (passed if asserts else int(not failures)), failures
