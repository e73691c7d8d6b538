"""The one exception that users see, and the wrapper that turns it into an exit code.

Framework-free: imported by every command of the project, so it imports nothing heavy.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Iterable

#: Exit codes shared by every command line of the project.
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """A failure the user can mend.

    The message is one sentence that ends with what to type or do next. Command lines print it
    as ``error: <message>`` without a traceback and exit with code 2.
    """


def nearest(word: object, words: Iterable[object]) -> str | None:
    """Return the entry of ``words`` that looks most like ``word``, or None when nothing does.

    Comparison ignores case, because a wrong capital is the commonest slip in a YAML key; the
    entry is returned as it is spelt in ``words``.
    """
    by_lower: dict[str, str] = {}
    for candidate in words:
        by_lower.setdefault(str(candidate).lower(), str(candidate))
    found = difflib.get_close_matches(str(word).lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def printable(text: object) -> str:
    """``text`` as one line for a terminal: what would break the line or move the cursor (line ends, escape sequences, marks of
    direction) is written as an escape, so that a name out of somebody's file cannot pass for a line of ours.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def run_cli(main: Callable[[list[str]], int], argv: list[str] | None = None) -> int:
    """Run ``main(argv)`` and return its exit code; a failure of the user's becomes one line.

    ``argv`` defaults to ``sys.argv[1:]``. UserError gives 2, Ctrl-C 130. A reader that went away
    (``| head``) is not an error. Anything else is a bug of ours and keeps its traceback.
    """
    try:
        code = main(sys.argv[1:] if argv is None else argv)
        # A closed pipe shows only when the buffer is written out, so do that while we can catch it.
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout again at exit and would complain there: point it at nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
