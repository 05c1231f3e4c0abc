"""Reads the colors of terminal output (ECMA-48 SGR sequences), and removes every other escape sequence.

The result is text with the names of styles, never HTML or CSS: what a job prints cannot choose anything else. Written by hand,
because libraries for this make HTML, interpret more than colors, or cannot begin in the middle of a log.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

STATE_PATTERN: Final = r"[0-9;]{0,64}"

_SEQUENCE: Final = re.compile(
    r"\x1b\[(?P<sgr>[0-9;:]*)m"  # select graphic rendition
    r"|\x1b\[[0-?]*[ -/]*(?:[@-~]|\Z)"  # other control sequences: cursor movement, erasing, modes
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|\Z)"  # strings for the terminal: titles, links, device control
    r"|\x1b[ -/]*(?:[0-Z\\^-~]|\Z)"  # escape sequences of two or three characters
)
# Other control characters are shown as their pictures (U+2400 …), those without a picture as U+FFFD.
_PICTURES: Final = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}

_FLAGS: Final = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike", 21: "underline"}
_ENDS: Final = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 29: ("strike",)}
_FLAG_CODES: Final = {"bold": 1, "dim": 2, "italic": 3, "underline": 4, "inverse": 7, "strike": 9}
_MAX_PARAMETERS: Final = 32
_CUBE: Final = (0, 95, 135, 175, 215, 255)  # the levels of each color in xterm's palette of 256


@dataclass(frozen=True, slots=True)
class Color:
    """A color of a terminal: one of the 16 that a theme defines, or a fixed one."""

    themed: int | None = None  # 0 to 15
    rgb: tuple[int, int, int] = (0, 0, 0)  # if it is fixed

    @property
    def name(self) -> str:
        """The number in the theme, or `#rrggbb`."""
        return "#{:02x}{:02x}{:02x}".format(*self.rgb) if self.themed is None else str(self.themed)

    def parameters(self, kind: int) -> str:
        """Return the SGR parameters that select the color; `kind` is 38 for the text and 48 for the background."""
        if self.themed is None:
            return f"{kind};2;" + ";".join(map(str, self.rgb))
        return f"{kind};5;{self.themed}"


@dataclass(frozen=True, slots=True)
class Style:
    """How text looks."""

    flags: frozenset[str] = frozenset()
    foreground: Color | None = None
    background: Color | None = None

    @property
    def state(self) -> str:
        """The SGR parameters that produce this style."""
        parts = [str(_FLAG_CODES[flag]) for flag in sorted(self.flags)]
        parts += [self.foreground.parameters(38)] if self.foreground else []
        parts += [self.background.parameters(48)] if self.background else []
        return ";".join(parts)

    def after(self, parameters: str) -> "Style":
        """Return the style after an SGR sequence with these parameters. Unknown ones change nothing."""
        style = self
        values = _values(parameters)
        for value in values:
            style = style._after_one(value, values)
        return style

    def _after_one(self, value: int, following: Iterator[int]) -> "Style":
        if value == 0:
            return PLAIN
        if value in _FLAGS:
            return replace(self, flags=self.flags | {_FLAGS[value]})
        if value in _ENDS:
            return replace(self, flags=self.flags.difference(_ENDS[value]))
        if value in (38, 48):
            color = _extended(following)
            if color is None:
                return self
            return replace(self, foreground=color) if value == 38 else replace(self, background=color)
        if 30 <= value <= 37 or 90 <= value <= 97:
            return replace(self, foreground=Color(value - 30 if value < 40 else value - 82))
        if 40 <= value <= 47 or 100 <= value <= 107:
            return replace(self, background=Color(value - 40 if value < 50 else value - 92))
        if value == 39:
            return replace(self, foreground=None)
        return replace(self, background=None) if value == 49 else self


PLAIN: Final = Style()


class Run(NamedTuple):
    """A piece of text in one style."""

    text: str
    style: Style


def read_line(text: str, style: Style) -> tuple[list[Run], Style]:
    """Return a printed line in runs of one style each, and the style at its end. `style` is the one at its start."""
    runs: list[Run] = []
    end = 0
    for found in _SEQUENCE.finditer(text):
        _append(runs, text[end : found.start()], style)
        end = found.end()
        if (parameters := found["sgr"]) is not None:
            style = style.after(parameters)
    _append(runs, text[end:], style)
    return _as_shown(runs), style


def _append(runs: list[Run], text: str, style: Style) -> None:
    if not text:
        return
    if runs and runs[-1].style == style:
        text = runs.pop().text + text
    runs.append(Run(text, style))


def _as_shown(runs: list[Run]) -> list[Run]:
    """Keep what follows the last carriage return, as a terminal shows a progress bar, and make other controls visible.

    A return with no text after it, as with line feeds of Windows, hides nothing.
    """
    while runs:
        text, style = runs.pop()
        if text := text.rstrip("\r"):
            runs.append(Run(text, style))
            break
    kept: list[Run] = []
    for run in runs:
        _, returned, after = run.text.rpartition("\r")
        if returned:
            kept = []
        if after:
            kept.append(Run(after.translate(_PICTURES), run.style))
    return kept


def _values(parameters: str) -> Iterator[int]:
    """Yield the parameters. Those with colons (`38:2::255:0:0`, `4:3`) become the usual ones."""
    for part in parameters.split(";")[:_MAX_PARAMETERS]:
        fields = [_number(field) for field in part.split(":")]
        if len(fields) >= 6 and fields[:2] in ([38, 2], [48, 2]):
            del fields[2]  # the color space
        if len(fields) > 1 and fields[0] not in (38, 48):
            fields = [24] if fields == [4, 0] else fields[:1]
        yield from fields[:_MAX_PARAMETERS]


def _number(text: str) -> int:
    return int(text[:4] or 0)


def _extended(following: Iterator[int]) -> Color | None:
    match next(following, None):
        case 5:
            return _of_palette(next(following, 0))
        case 2:
            red, green, blue = (min(next(following, 0), 255) for _ in range(3))
            return Color(rgb=(red, green, blue))
    return None


def _of_palette(number: int) -> Color | None:
    if number < 16:
        return Color(number)
    if number < 232:
        red, rest = divmod(number - 16, 36)
        return Color(rgb=(_CUBE[red], _CUBE[rest // 6], _CUBE[rest % 6]))
    gray = 8 + 10 * (number - 232)
    return Color(rgb=(gray, gray, gray)) if number < 256 else None
