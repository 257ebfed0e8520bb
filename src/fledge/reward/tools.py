"""Tools that an answer may call in the middle of a dialogue (multi-turn tasks).

A turn calls the tool if it ends with ``<tool_call>...</tool_call>``. What stands between is the call: text, or JSON as
Qwen2.5 writes it, ``{"name": ..., "arguments": {"expression": "2 * 3"}}``, of which the one argument is taken. The
tool's answer follows as a message of the role ``tool``, and the model goes on.
"""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from pydantic import Field, field_validator

from fledge.core.config import Config
from fledge.core.records import Task
from fledge.reward import sandbox
from fledge.reward.functions import Function, FunctionFailed

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_LONGEST = 200  # characters of an expression
_BITS = 256  # of a number in it


class ToolConfig(Config):
    use: str = Field(description="calculator, python (in the sandbox), or your own module:function(task, call) -> text")
    calls: int = Field(default=4, gt=0, description="calls an answer may make; with one more it ends")
    tokens: int = Field(default=64, gt=0, description="of what the tool says to one call; the rest is cut")
    seconds: float = Field(default=5.0, gt=0, description="limit of one call")

    @field_validator("use")
    @classmethod
    def _known(cls, use: str) -> str:
        if use not in ("calculator", "python") and ":" not in use:
            raise ValueError("choose calculator, python, or name your own as module:function")
        return use


@dataclass(frozen=True)
class Said:
    """What a tool said. ``failed``: it has no answer; the text then begins with "error: ", for the model to read."""

    text: str
    failed: bool = False


Tool = Callable[[Sequence[tuple[Task, str]]], list[Said]]


def find_call(turn: str) -> str | None:
    """The call that a turn ends with, or None."""
    text = turn.rstrip()
    start = text.rfind(OPEN)
    if start < 0 or not text.endswith(CLOSE):
        return None
    call = text[start + len(OPEN) : -len(CLOSE)].strip()
    try:
        arguments = json.loads(call)["arguments"]
        (argument,) = arguments.values()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return call
    return argument if isinstance(argument, str) else json.dumps(argument)


def make_tool(config: ToolConfig) -> Tool:
    """Raises ConfigError where a user's function cannot be loaded, SandboxUnavailable where code cannot be confined."""
    if config.use == "calculator":
        return lambda calls: [_said(calculate, call) for _, call in calls]
    if config.use == "python":
        sandbox.protection()
        limits = sandbox.Limits(wall=config.seconds)
        return lambda calls: [
            _of_code(result) for result in sandbox.run_many([sandbox.Job(code, limits=limits) for _, code in calls])
        ]
    function = Function(config.use, config.seconds)
    return lambda calls: [_said(function, task, call) for task, call in calls]


def _said(compute: Callable[..., object], *arguments: object) -> Said:
    try:
        return Said(str(compute(*arguments)))
    except (ValueError, FunctionFailed) as problem:
        return Said(f"error: {problem}", failed=True)


def _of_code(result: sandbox.Result) -> Said:
    if result.status != "done":
        return Said(f"error: {result.detail}", failed=True)
    output = result.output.strip()
    return Said(output, failed=result.exit != 0) if output else Said("error: it printed nothing", failed=True)


_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction | int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


def calculate(expression: str) -> str:
    """The value of an expression of numbers, ``+ - * / // % **`` and brackets, exactly. Raises ValueError."""
    if len(expression) > _LONGEST:
        raise ValueError(f"the expression is longer than {_LONGEST} characters")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, RecursionError, MemoryError) as problem:
        reason = "division by zero" if isinstance(problem, ZeroDivisionError) else "not an expression of numbers"
        raise ValueError(reason) from None
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.10g}"


def _value(node: ast.expr) -> Fraction:
    """Never `eval`: the text is a model's."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        if node.value == float("inf"):  # 1e999
            raise ValueError("the number is too large")
        return _small(Fraction(str(node.value)))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            if right.denominator != 1 or abs(right) > _BITS:
                raise ValueError("the exponent must be a small whole number")
            return _small(_small(left) ** int(right))
        if type(node.op) in _BINARY:
            return _small(Fraction(_BINARY[type(node.op)](left, right)))
    raise ValueError("not an expression of numbers")


def _small(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _BITS:
        raise ValueError("the number is too large")
    return value
