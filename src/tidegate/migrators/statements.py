"""SQL text, taken apart into statements: only as much of the language as that needs. Pure.

Hides literals, quoted names, comments (nested as in PostgreSQL), dollar quotes and the bodies of triggers and
functions, in all of which a semicolon ends nothing (PostgreSQL manual, 4.1 "Lexical Structure"; SQLite,
sqlite3_complete). What a statement means is the database's to say: nothing here judges whether it is valid.

Invariants: every character of the text is in one statement, between two, or in the error. Time grows with the
length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""
      (?P<blank>   \s+ | --[^\n]* )
    | (?P<comment> /\* )
    | (?P<quoted>  (?<![\w$]) [eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'
                 | '[^']*(?:''[^']*)*'
                 | "[^"]*(?:""[^"]*)*"
                 | `[^`]*(?:``[^`]*)*` )
    | (?<![\w$]) (?P<dollar> \$(?:[^\W\d]\w*)?\$ )
    | (?P<word>    [^\W\d][\w$]* )
    | (?P<number>  \d[\w.]* )
    | (?P<end>     ; )
    | (?P<other>   . )
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_OPENERS = {"'": "a literal", '"': "a quoted name", "`": "a quoted name"}

_HEAD_WORDS = 8
"""Enough for CREATE OR REPLACE TEMPORARY TRIGGER IF NOT EXISTS name."""
_WITH_BODY = frozenset({"TRIGGER", "FUNCTION", "PROCEDURE"})


class UnfinishedError(ValueError):
    """Something is opened and never closed."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(f"line {line}: {what} is not closed")
        self.what, self.line = what, line


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, without the semicolon that ends it."""

    text: str
    """From its first word, comments inside included."""
    line: int
    """Of its first word, from 1."""
    words: tuple[str, ...]
    """The first few of it in capitals, literals, quoted names and signs left out."""


def split(sql: str) -> Iterator[Statement]:
    """The statements of a script, in order; empty ones are left out.

    Raises UnfinishedError: a literal, a quoted name, a comment or a body goes on to the end of the text.
    """
    reader = _Reader(sql)
    at = 0
    while token := _TOKEN.match(sql, at):
        if token.lastgroup == "end" and not reader.depth:
            yield from reader.take(token.start())
            at = token.end()
        elif token.lastgroup == "blank":
            at = token.end()
        elif token.lastgroup == "comment":
            at = reader.after_comment(at)
        else:
            at = reader.read(token)
    if reader.depth:
        raise UnfinishedError("the body that begins with BEGIN", reader.line(reader.body_at))
    yield from reader.take(len(sql))


_PLAIN_NAME = re.compile(r'["`]([^\W\d]\w*)["`]')


def spelled(sql: str) -> tuple[str, ...]:
    """The words and signs of one statement in one spelling: small letters, no quotes that are not needed.

    Only for comparing: texts that are spelled alike mean the same, not the other way round. Raises
    UnfinishedError.
    """
    said: list[str] = []
    at, reader = 0, _Reader(sql)
    while token := _TOKEN.match(sql, at):
        if token.lastgroup == "blank":
            at = token.end()
        elif token.lastgroup == "comment":
            at = reader.after_comment(at)
        else:
            at = reader.read(token)
            said.append(_spelled(sql[token.start() : at], literal=token.lastgroup in ("quoted", "dollar")))
    return tuple(said)


def _spelled(text: str, *, literal: bool) -> str:
    if plain := _PLAIN_NAME.fullmatch(text):
        return plain[1].lower()
    return text if literal else text.lower()


@dataclass(slots=True)
class _Reader:
    """The statement that is being read."""

    sql: str
    start: int | None = None
    end: int = 0
    words: list[str] = field(default_factory=list)
    depth: int = 0
    body_at: int = 0
    counted: tuple[int, int] = (0, 1)
    """A character, and its line: counted on from there, or a long script would be counted again and again."""

    def read(self, token: re.Match[str]) -> int:
        """Take a token that belongs to the statement; where to go on."""
        if self.start is None:
            self.start = token.start()
        self.end = token.end()
        if token.lastgroup == "word":
            self._word(token)
        elif token.lastgroup == "dollar":
            close = self.sql.find(token[0], token.end())
            if close < 0:
                raise UnfinishedError(f"the text that begins with {token[0]}", self.line(token.start()))
            self.end = close + len(token[0])
        elif token.lastgroup == "other" and token[0] in _OPENERS:
            raise UnfinishedError(_OPENERS[token[0]], self.line(token.start()))
        return self.end

    def _word(self, token: re.Match[str]) -> None:
        word = token[0].upper()
        if word == "E" and self.sql.startswith("'", token.end()):
            raise UnfinishedError(_OPENERS["'"], self.line(token.start()))  # else it were a literal
        if len(self.words) < _HEAD_WORDS:
            self.words.append(word)
        if self.depth:
            self.depth += {"BEGIN": 1, "CASE": 1, "END": -1}.get(word, 0)
        elif word == "BEGIN" and self.words[0] == "CREATE" and _WITH_BODY.intersection(self.words):
            self.depth, self.body_at = 1, token.start()

    def after_comment(self, at: int) -> int:
        """Where the comment that opens at `at` has ended, those inside it too."""
        depth = 0
        for edge in _COMMENT_EDGE.finditer(self.sql, at):
            depth += 1 if edge[0] == "/*" else -1
            if not depth:
                return edge.end()
        raise UnfinishedError("a comment", self.line(at))

    def take(self, end: int) -> Iterator[Statement]:
        """The statement that ends here, if there is one, and an empty reader."""
        if self.start is not None:
            text = self.sql[self.start : min(end, self.end)]
            self.counted = (self.start, self.line(self.start))
            yield Statement(text, self.counted[1], tuple(self.words))
        self.start, self.words = None, []

    def line(self, at: int) -> int:
        """Number of the line of a character, not before the last statement."""
        since, line = self.counted
        return line + self.sql.count("\n", since, at)
