"""From the text of an expression to its nodes (section 2). Pure.

The grammar is lark's: LALR(1), so parsing takes linear time and no stack of Python's, whatever the nesting.
It is read, and lark imported, when the first expression is parsed: most declarations have none.

Operators of equal precedence are grouped from the left, ``AND``, ``OR`` and ``XOR`` among them (section 3.6).
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from torpor.cesql.nodes import (
    Attribute,
    Binary,
    Call,
    Exists,
    In,
    Like,
    Literal,
    Node,
    Unary,
    walk,
)
from torpor.cesql.values import LEAST, MOST
from torpor.errors import ExpressionError

if TYPE_CHECKING:
    from lark import Lark, Token

MAX_LENGTH: Final = 2048
"""Most characters of an expression."""
MAX_DEPTH: Final = 64
"""How deep operators and calls may stand in one another."""

# Words of the language are told from names by what follows them. A sign belongs to a number where no operand
# stands before it, which a grammar sees and a lexer does not.
_GRAMMAR: Final = r"""
?start: logic
?logic: comparison | logic (AND | OR | XOR) comparison -> binary
?comparison: sum | comparison (EQUAL | NOT_EQUAL | ORDER) sum -> binary
?sum: product | sum (PLUS | MINUS) product -> binary
?product: postfix | product (STAR | SLASH | PERCENT) postfix -> binary
?postfix: unary
    | postfix (LIKE | NOT_LIKE) STRING -> like
    | postfix (IN | NOT_IN) OPEN logic (COMMA logic)* CLOSE -> among
?unary: primary
    | (NOT | MINUS) unary -> unary
?primary: OPEN logic CLOSE -> group
    | EXISTS WORD -> exists
    | INTEGER -> integer
    | PLUS INTEGER -> integer
    | STRING -> text
    | (TRUE | FALSE) -> boolean
    | WORD -> attribute
    | WORD OPEN [logic (COMMA logic)*] CLOSE -> call

OPEN: "("
CLOSE: ")"
COMMA: ","
NOT_LIKE.3: /not[ \t\r\n]+like(?![a-z0-9_])/i
NOT_IN.3: /not[ \t\r\n]+in(?![a-z0-9_])/i
AND.2: /and(?![a-z0-9_])/i
OR.2: /or(?![a-z0-9_])/i
XOR.2: /xor(?![a-z0-9_])/i
NOT.2: /not(?![a-z0-9_])/i
LIKE.2: /like(?![a-z0-9_])/i
IN.2: /in(?![a-z0-9_])/i
EXISTS.2: /exists(?![a-z0-9_])/i
TRUE.2: /true(?![a-z0-9_])/i
FALSE.2: /false(?![a-z0-9_])/i
INTEGER.2: /[0-9]+(?![a-zA-Z0-9_])/
WORD: /[a-zA-Z0-9_]+/
STRING: /'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"/s
ORDER: ">=" | "<=" | "<" | ">"
EQUAL: "="
NOT_EQUAL.1: "!=" | "<>"
PLUS: "+"
MINUS: "-"
STAR: "*"
SLASH: "/"
PERCENT: "%"
%ignore /[ \t\r\n]+/
"""


_OPERATORS: Final = frozenset(
    ("AND", "OR", "XOR", "EQUAL", "NOT_EQUAL", "ORDER", "PLUS", "MINUS", "STAR", "SLASH", "PERCENT")
) | {"LIKE", "NOT_LIKE", "IN", "NOT_IN"}
_OPERANDS: Final = frozenset(("WORD", "INTEGER", "STRING", "TRUE", "FALSE", "NOT", "EXISTS", "MINUS", "PLUS"))
_WORDS: Final = {
    "WORD": "an attribute's name",
    "STRING": "a text in quotes",
    "INTEGER": "a whole number",
    "OPEN": "'('",
    "COMMA": "','",
    "CLOSE": "')'",
    "$END": "the end",
}
_FUNCTION: Final = re.compile(r"[A-Za-z][A-Za-z_]*\Z")
NO_DATA: Final = (
    "which expressions can't: a filter of another dialect, such as exact: {data.order.id: a}, was expected"
)
"""What is said of the event's data; attributes have no such name."""
_DATA: Final = re.compile(r"\bdata\Z", re.IGNORECASE)
_LONGEST_SHOWN: Final = 40
_MOST_DIGITS: Final = 20


def parse(text: str) -> Node:
    """The nodes of the expression ``text``. Raises :class:`~torpor.errors.ExpressionError`."""
    from lark import exceptions  # noqa: PLC0415 - see the module's docstring

    if not text.strip():
        raise ExpressionError(1, "is empty, an expression was expected")
    if len(text) > MAX_LENGTH:
        problem = f"has {len(text)} characters, at most {MAX_LENGTH} were expected"
        raise ExpressionError(MAX_LENGTH + 1, problem)
    try:
        root: Node = _lark().parse(text)  # type: ignore[assignment]
    except exceptions.UnexpectedToken as error:
        raise _unexpected(error.token, error.accepts or error.expected, len(text)) from None
    except exceptions.UnexpectedCharacters as error:
        start: int = error.pos_in_stream  # type: ignore[assignment] # it is None of other errors alone
        raise _unreadable(text, start) from None
    _check(root)
    return root


@cache
def _lark() -> Lark:
    from lark import Lark  # noqa: PLC0415 - see the module's docstring

    return Lark(
        _GRAMMAR,
        parser="lalr",
        lexer="basic",
        maybe_placeholders=False,
        transformer=_Builder(),
    )


def _check(root: Node) -> None:
    for node, depth in walk(root):
        if depth > MAX_DEPTH:
            raise _fault(node.start, "is nested", f"at most {MAX_DEPTH} levels were expected")
        if isinstance(node, Literal):
            _check_literal(node)


def _check_literal(node: Literal) -> None:
    if isinstance(node.value, int) and not LEAST <= node.value <= MOST:
        raise _fault(node.start, "has a number", f"{LEAST} to {MOST} was expected")


def _fault(start: int, problem: str, expected: str) -> ExpressionError:
    return ExpressionError(start + 1, f"{problem} at character {start + 1}, {expected}")


def _unexpected(token: Token, accepted: set[str], length: int) -> ExpressionError:
    expected = f"{_either(_accepted(accepted))} was expected"
    if token.type == "$END":
        return ExpressionError(length + 1, f"ends after character {length}, {expected}")
    return _fault(_start(token), f"has {_shown(token)}", expected)


def _accepted(accepted: set[str]) -> list[str]:
    words = []
    if accepted >= _OPERANDS:
        words += ["an attribute", "a value", "a function", "'('"]
        accepted = accepted - _OPERANDS - {"OPEN"}
    if "AND" in accepted:  # where it may stand, others may: some were seen to be impossible just now
        words.append("an operator")
        accepted = accepted - _OPERATORS - {"OPEN"}
    return words + [_WORDS[name] for name in _WORDS if name in accepted]


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _unreadable(text: str, start: int) -> ExpressionError:
    if text[start] in "'\"":
        return _fault(start, "has a text", f"its end was expected: {text[start]}")
    if text[start] == "." and _DATA.search(text, 0, start):
        return _fault(start, "looks into data", NO_DATA)
    return _fault(start, f"has {text[start]!r}", "a name, a value or an operator was expected")


def _shown(token: Token) -> str:
    text = str(token)
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}...")


def _start(token: Token) -> int:
    assert token.start_pos is not None  # noqa: S101 - the lexer sets it
    return token.start_pos


def _end(token: Token) -> int:
    return _start(token) + len(token)


class _Builder:
    """Makes a node of each rule, by the rule's name, while the text is parsed."""

    def binary(self, parts: list[Any]) -> Node:
        left, operator, right = parts
        return Binary(left.start, right.end, operator.upper().replace("<>", "!="), left, right)

    def like(self, parts: list[Any]) -> Node:
        operand, operator, pattern = parts
        return Like(operand.start, _end(pattern), operand, _unquoted(pattern), operator.type == "NOT_LIKE")

    def among(self, parts: list[Any]) -> Node:
        operand, operator, _, *members, close = parts
        return In(operand.start, _end(close), operand, tuple(members[::2]), operator.type == "NOT_IN")

    def unary(self, parts: list[Any]) -> Node:
        operator, operand = parts
        start = _start(operator)
        # The least number has a digit too many without its sign.
        if isinstance(operand, Literal) and operand.value == MOST + 1 and _end(operator) == operand.start:
            return Literal(start, operand.end, LEAST)
        return Unary(start, operand.end, operator.upper(), operand)

    def group(self, parts: list[Any]) -> Node:
        opening, node, close = parts
        if isinstance(node, Literal):
            _check_literal(node)
        fields = {name: getattr(node, name) for name in type(node).__dataclass_fields__}
        widened: Node = type(node)(**(fields | {"start": _start(opening), "end": _end(close)}))
        return widened

    def exists(self, parts: list[Any]) -> Node:
        return Exists(_start(parts[0]), _end(parts[1]), _attribute(parts[1]))

    def integer(self, parts: list[Any]) -> Node:
        *sign, digits = parts
        if len(digits) > _MOST_DIGITS:
            raise _fault(_start(digits), "has a number", f"{LEAST} to {MOST} was expected")
        node = Literal(_start(parts[0]), _end(digits), int(digits))
        if sign:
            if _end(sign[0]) != _start(digits):
                raise _fault(_start(sign[0]), "has '+'", "a number right after it was expected")
            _check_literal(node)
        return node

    def text(self, parts: list[Any]) -> Node:
        return Literal(_start(parts[0]), _end(parts[0]), _unquoted(parts[0]))

    def boolean(self, parts: list[Any]) -> Node:
        return Literal(_start(parts[0]), _end(parts[0]), parts[0].type == "TRUE")

    def attribute(self, parts: list[Any]) -> Node:
        return Attribute(_start(parts[0]), _end(parts[0]), _attribute(parts[0]))

    def call(self, parts: list[Any]) -> Node:
        name, _, *arguments, close = parts
        if not _FUNCTION.match(name):
            raise _fault(_start(name), f"calls {_shown(name)}", "letters and '_' were expected")
        return Call(_start(name), _end(close), name.upper(), tuple(arguments[::2]))


def _attribute(token: Token) -> str:
    if "_" in token:
        raise _fault(_start(token), f"has {_shown(token)}", "a name of letters and digits was expected")
    return token.lower()


def _unquoted(token: Token) -> str:
    """The text of a literal: a backslash stands for nothing but itself, except before its quote."""
    quote = token[0]
    return token[1:-1].replace(f"\\{quote}", quote)
