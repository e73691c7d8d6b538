"""Result files in, report out: one self-contained HTML page, Markdown for a pull request, JUnit for CI.

`write` is the whole interface; `python -m reports DIR` is the same from a shell. Nothing here imports a
framework or a model, and nothing here computes a result: see `alignment` for that.
"""

from __future__ import annotations

import os
from pathlib import Path

from jt_nanodet.errors import UserError

__all__ = ["write", "write_report"]

NAMES = {"html": "report.html", "markdown": "report.md", "junit": "junit.xml"}


def save_text(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name, then rename; UserError when the place is not writable."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); give a folder you can write to with --output"
        ) from None
    finally:
        try:
            partial.unlink(missing_ok=True)
        except OSError:
            pass


def write_report(report_dir: str | Path) -> tuple[dict[str, Path], object]:
    """Like `write`, and also returns the `reports.summary.Summary` that the report shows."""
    from reports import junit, markdown, page  # drawing libraries are slow to import: only when a report is made
    from reports.source import read_folder
    from reports.summary import summarise

    folder = Path(report_dir)
    source = read_folder(folder)
    summary = summarise(source)
    texts = {
        "html": page.render(source, summary),
        "markdown": markdown.render(source, summary, NAMES["html"]),
        "junit": junit.render(source, summary),
    }
    paths = {kind: folder / NAMES[kind] for kind in texts}
    for kind, text in texts.items():
        save_text(paths[kind], text)
    return paths, summary


def write(report_dir: str | Path) -> dict[str, Path]:
    """Read the result files below `report_dir` and write report.html, report.md and junit.xml there.

    Read are `report.json` and every `<part>/result.json` one level down (structure, weights, layers, infer
    and any other). A missing or damaged file is shown as "not run" or as damaged. Returns the paths by
    kind: `html`, `markdown`, `junit`. Raises UserError when the folder holds no usable result or cannot
    be written.
    """
    return write_report(report_dir)[0]
