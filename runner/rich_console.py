"""The consoles of rich, whose text is that of users: control characters are escaped, as is what cannot be encoded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from runner.printing import in_notebook, standard_output, visible
from runner.streams import encodable

# Columns where there is no terminal: a pipe has no width, and rich would wrap at 80
_PIPE_WIDTH = 200
# Columns of a cell's output
_NOTEBOOK_WIDTH = 100


class _SafeConsole(Console):
    """A console that shows text and never sends it as commands to the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text that rich shows, such as a cell of a table; its width is that of what is shown."""
        return super().render_str(encodable(visible(text), self.encoding), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of what is shown: also those of text that is no string."""
        for segment in super().render(renderable, options):
            shown = segment.text if segment.control else visible(segment.text)
            yield segment if shown is segment.text else Segment(shown, segment.style)


def make_console(stream: TextIO | None = None, *, pipe_width: int | None = _PIPE_WIDTH) -> Console:
    """Return a console for a stream, by default standard output; `pipe_width` is its width without a terminal."""
    stream = stream or standard_output()
    width = None if stream.isatty() else _NOTEBOOK_WIDTH if in_notebook(stream) else pipe_width
    # In a notebook, rich would show everything there, also what belongs to another stream
    return _SafeConsole(file=stream, highlight=False, markup=False, emoji=False, width=width, force_jupyter=False)
