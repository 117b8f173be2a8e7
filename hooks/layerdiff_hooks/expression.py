"""Sizes as descriptions write them: names, numbers and + - * /."""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from layerdiff_hooks.errors import LayerdiffError

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def lookup(config: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of nested objects.

    Raises:
        LayerdiffError: the path leads nowhere.
    """
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping) or value.get(key) is None:
            raise LayerdiffError(f"the configuration has no value for {path!r}")
        value = value[key]
    return value


def evaluate(
    expression: str, config: Mapping[str, Any], defaults: Mapping[str, str] | None = None
) -> int:
    """Evaluate a size such as ``"head_dim * rope_parameters.partial_rotary_factor / 2"``.

    `defaults` are expressions for names that the configuration may lack.

    Raises:
        LayerdiffError: a syntax other than names, numbers and + - * /, a name that the
            configuration lacks, or a result that is not a whole number of at least 0.
    """

    def value(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return number
            case ast.Name() | ast.Attribute():
                name = ast.unparse(node)
                try:
                    found = lookup(config, name)
                except LayerdiffError:
                    if name not in (defaults or {}):
                        raise
                    return value(ast.parse((defaults or {})[name], mode="eval").body)
                if isinstance(found, int | float) and not isinstance(found, bool):
                    return found
                raise LayerdiffError(f"{ast.unparse(node)!r} is {found!r}, not a number")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](value(left), value(right))
        raise LayerdiffError(f"size {expression!r}: cannot read {ast.unparse(node)!r}")

    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError:
        raise LayerdiffError(f"size {expression!r} is not an expression") from None
    try:
        result = value(tree.body)
    except ZeroDivisionError:
        raise LayerdiffError(f"size {expression!r} divides by zero") from None
    whole = round(result)
    if abs(result - whole) > 1e-9 or whole < 0:
        raise LayerdiffError(f"size {expression!r} is {result}, not a whole number")
    return whole
