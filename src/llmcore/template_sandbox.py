"""
Runs an untrusted Jinja template so that it can only make text out of data.

Two rules hold it. What is not listed here (attributes, filters, globals, statements)
does not exist. And every loop step, call, filter, operator and container pays for what
it reads and makes out of one budget, so that a template ends in bounded time and
memory whatever it does.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context
from jinja2.visitor import NodeTransformer

__all__ = ["Clock", "compile_template", "run_template"]

Clock = Callable[[], datetime.datetime]
"""Tells the time to templates that print today's date."""

MAX_SOURCE = 2**20
MAX_TEXT = 8 * 2**20
MAX_STEPS = 1_000_000
CHARACTERS_PER_STEP = 256
MAX_INTEGER_BITS = 1024
NODES_PER_STEP = 32
STEPS_PER_CALL = 4

_FILTERS = """
    abs capitalize count d default dictsort first float int items last length list lower
    map max min reject rejectattr reverse select selectattr sort string title trim
    unique upper
"""
_METHODS: Mapping[type, str] = {
    str: """
        capitalize count endswith find index isalnum isalpha isdecimal isdigit islower
        isnumeric isspace istitle isupper join lower lstrip partition removeprefix
        removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines
        startswith strip title upper
    """,
    dict: "get items keys values",
    list: "count index",
    tuple: "count index",
    LoopContext: """
        changed cycle depth depth0 first index index0 last length nextitem previtem
        revindex revindex0
    """,
}
_FORBIDDEN = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)


class LimitError(TemplateError):
    """The template wanted more work or memory than it may have."""


class Refusal(TemplateError):
    """The template called ``raise_exception``."""


# -- the budget ----------------------------------------------------------------------


class _Budget:
    """What is left of the steps of one run; lives as long as the run."""

    def __init__(self) -> None:
        self.left = MAX_STEPS

    def pay(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise LimitError(f"it takes more than {MAX_STEPS} steps")


_budget: ContextVar[_Budget] = ContextVar("llmcore_template_budget")


def _metered(value: Any) -> Any:
    """Pay for a value by its extent; shared parts count each time they occur."""
    budget, rest = _budget.get(), [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            _check_size(len(item))
            budget.pay(1 + len(item) // CHARACTERS_PER_STEP)
        elif isinstance(item, dict | list | tuple):
            budget.pay(1 + len(item))
            rest.extend(item)
            rest.extend(item.values() if isinstance(item, dict) else ())
        elif isinstance(item, Namespace):
            raise LimitError("a namespace cannot be used as data")
        else:
            budget.pay(1)
    return value


def _check_size(size: int) -> None:
    if size > MAX_TEXT:
        raise LimitError(f"it makes a text or list of more than {MAX_TEXT} elements")


@pass_context  # with it, the compiler cannot compute the call in advance
def _meter(context: Context, value: Any) -> Any:
    return _metered(value)


@pass_context
def _each(context: Context, values: Iterable[Any], steps: int) -> Iterator[Any]:
    return _counted(values, steps)


def _counted(values: Iterable[Any], steps: int = 1) -> Iterator[Any]:
    budget = _budget.get()
    for value in values:
        budget.pay(steps)
        yield value


@pass_context
def _pay(context: Context, steps: int) -> None:
    _budget.get().pay(steps)


def _paying(function: Callable[..., Any], *free: type) -> Callable[..., Any]:
    """The same filter or test, paying for its arguments and its result."""

    @functools.wraps(function)
    def paying(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if not isinstance(value, free):
                _metered(value)
        return _metered(function(*args, **kwargs))

    return paying


def _filter(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [*args], [], None, None, lineno=node.lineno)


def _steps(node: nodes.Node) -> nodes.Const:
    """What one pass through these statements costs, calls and loops apart."""
    inner = list(node.find_all(nodes.Node))
    text = sum(len(n.data) for n in inner if isinstance(n, nodes.TemplateData))
    steps = 1 + len(inner) // NODES_PER_STEP + text // CHARACTERS_PER_STEP
    return nodes.Const(steps, lineno=node.lineno)


class _Meters(NodeTransformer):
    """Puts a meter wherever a template reads or makes something without a call."""

    def _metered(self, node: nodes.Expr) -> nodes.Expr:
        return _filter(node, "_meter")

    def _paid_body(self, node: Any) -> nodes.Node:
        steps = _steps(node)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter(steps, "_pay"), lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = _paid_body

    def visit_For(self, node: nodes.For) -> nodes.Node:
        steps = _steps(node)
        self._paid_body(node)
        node.iter = _filter(node.iter, "_each", steps)  # type: ignore[arg-type]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._metered(node.expr)
        for operand in node.ops:
            operand.expr = self._metered(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return self._metered(node) if isinstance(node.arg, nodes.Slice) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return self._metered(node) if node.ctx == "load" else node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        node.nodes = [self._metered(part) for part in node.nodes]
        return self._metered(node)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return self._metered(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return self._metered(node)


# -- the environment -----------------------------------------------------------------


class _Sandbox(ImmutableSandboxedEnvironment):
    """Only the listed names, and each call and operator pays."""

    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if not super().is_safe_attribute(obj, attr, value):
            return False
        return isinstance(obj, Namespace) or attr in _METHODS.get(type(obj), "").split()

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        kind = type(obj).__name__
        raise SecurityError(f"the attribute {attribute!r} of {kind!r} is not allowed")

    def wrap_str_format(self, value: Any) -> None:
        """``str.format`` is no listed method; the general check refuses it."""

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        _budget.get().pay(STEPS_PER_CALL)
        if isinstance(__obj, LoopContext):
            args = tuple(map(_counted, args))
        elif isinstance(owner := getattr(__obj, "__self__", None), str):
            _check_growth(__obj.__name__, owner, args)
        result = super().call(__context, __obj, *args, **kwargs)
        return result if isinstance(result, Namespace) else _metered(result)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _metered(left), _metered(right)
        _check_operands(operator, left, right)
        return super().call_binop(context, operator, left, right)


def _check_growth(name: str, text: str, args: tuple[Any, ...]) -> None:
    """Refuse what would multiply two lengths before it is computed."""
    for value in args:
        _metered(value)
    if name == "replace" and len(args) > 1:
        _check_size((text.count(args[0]) + 1) * len(args[1]) + len(text))
    if name == "join" and args:
        _check_size(len(text) * len(args[0]))


def _check_operands(operator: str, left: Any, right: Any) -> None:
    if operator == "%" and isinstance(left, str):
        raise LimitError("formatting with '%' is not allowed")
    for one, other in ((left, right), (right, left)):
        if operator == "*" and isinstance(one, str | list | tuple):
            _check_size(len(one) * max(0, int(other)))
    if isinstance(left, int) and isinstance(right, int):
        power = operator == "**"
        bits = left.bit_length() * abs(right) if power else left.bit_length()
        if max(bits, 0 if power else right.bit_length()) > MAX_INTEGER_BITS:
            raise LimitError(
                f"it computes a number of more than {MAX_INTEGER_BITS} bits"
            )


class _Generation(Extension):
    """``{% generation %}``, which marks text for training, is only its contents."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


# -- filters and globals of our own ----------------------------------------------------


def _raise_exception(message: object = "") -> None:
    raise Refusal(str(message))


def _strftime(clock: Clock, pattern: str) -> str:
    if len(pattern) > 256 or re.search(r"%[-_0^#+]*[1-9]", pattern):
        raise LimitError("strftime_now takes no field widths")
    return clock().strftime(pattern)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As in the templates' home: not escaped for HTML, unlike Jinja's own."""
    if indent is not None and not 0 <= indent <= 16:
        raise LimitError("tojson takes an indent from 0 to 16")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _join(values: Iterable[Any], d: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        raise LimitError("join takes no attribute")
    texts = [str(_metered(value)) for value in _counted(values)]
    _check_size(len(str(d)) * len(texts) + sum(map(len, texts)))
    return str(d).join(texts)


def _replace(value: Any, old: str, new: str, count: int = -1) -> str:
    text = str(value)
    _check_growth("replace", text, (old, new))
    return text.replace(old, new, -1 if count is None else count)


def _environment(clock: Clock) -> _Sandbox:
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[LoopControlExtension, _Generation],
        finalize=_metered,
    )
    filters: dict[str, Callable[..., Any]] = {
        **{name: environment.filters[name] for name in _FILTERS.split()},
        **{"tojson": _to_json, "join": _join, "replace": _replace, "safe": str},
    }
    paying = {name: _paying(function) for name, function in filters.items()}
    environment.filters = {**paying, "_meter": _meter, "_each": _each, "_pay": _pay}
    tests: Mapping[str, Any] = environment.tests
    environment.tests = {n: _paying(test, Namespace) for n, test in tests.items()}
    kept = {name: environment.globals[name] for name in ("range", "dict", "namespace")}
    environment.globals = {
        **kept,
        "raise_exception": _raise_exception,
        "strftime_now": functools.partial(_strftime, clock),
    }
    return environment


# -- running -------------------------------------------------------------------------


def compile_template(source: str, clock: Clock) -> Template:
    """
    Compile a template.

    Raises:
        TemplateError: It is too long, has a syntax error, or loads other templates.
    """
    _budget.set(_Budget())
    if len(source) > MAX_SOURCE:
        raise LimitError(f"it is longer than {MAX_SOURCE} characters")
    environment = _environment(clock)
    tree = environment.parse(source)
    if next(tree.find_all(_FORBIDDEN), None) is not None:
        raise LimitError("include, import, extends and block are not allowed")
    return environment.from_string(_Meters().visit(tree))


def run_template(template: Template, variables: Mapping[str, Any]) -> str:
    """
    Render a compiled template within its budget. Any thread, several at once.

    Raises:
        Exception: Anything; the template is untrusted code.
    """
    _budget.set(_Budget())
    pieces: list[str] = []
    length = 0
    for piece in template.generate(variables):
        length += len(piece)
        _check_size(length)
        pieces.append(piece)
    return "".join(pieces)
