"""Numbers as text, and the tables that HTML, Markdown and the README share.

A `Table` is plain text: who renders it escapes it.
"""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field

from reports.source import Source, as_dict, as_list, as_number, as_text

#: The twelve COCO numbers in pycocotools' order, with the spellings that occur for each.
COCO_KEYS = (
    ("mAP",), ("AP_50",), ("AP_75",), ("AP_small", "AP_s"), ("AP_m", "AP_medium"), ("AP_l", "AP_large"),
    ("AR_1",), ("AR_10",), ("AR_100",), ("AR_small", "AR_s"), ("AR_m", "AR_medium"), ("AR_l", "AR_large"),
)  # fmt: skip
SIDES = ("pytorch", "jittor")
SIDE_NAMES = {"pytorch": "PyTorch", "jittor": "Jittor"}
PHASES = ("preprocess", "forward", "postprocess")
NONE = "–"
#: Settings that differ between parts by their nature, so that a difference is not worth a mark.
MEASURED = ("peak_memory_mb", "coverage", "constant_tensors")


@dataclass
class Table:
    """Columns and rows of text. `marks` gives a row's class ("bad", "") and has one entry a row.

    The first `left` columns are words, the others numbers, set flush right.
    """

    columns: list[str]
    rows: list[list[str]]
    marks: list[str] = field(default_factory=list)
    left: int = 1


def sci(value: float | None) -> str:
    """An error as text: 0, 1.2e-7, NaN, ∞; a dash when there is none."""
    if value is None:
        return NONE
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def plain(value: float | None) -> str:
    """A quantity with three digits; in scientific form only when it is small."""
    if value is None or not math.isfinite(value) or not 0.01 <= abs(value) < 1e6:
        return sci(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def fixed(value: float | None, digits: int = 4) -> str:
    """A plain decimal; a dash when there is none. Not-finite values are spelt out."""
    if value is None or not math.isfinite(value):
        return sci(value)
    return f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 6) -> str:
    """A difference with its sign; exactly zero is "0", so that it differs from "rounds to zero"."""
    if value is None or not math.isfinite(value):
        return sci(value)
    if value == 0:
        return "0"
    return f"{value:+.{digits}f}" if abs(value) >= 0.5 * 10**-digits else f"{value:+.0e}"


def count(value: int | float | None) -> str:
    """A count with thin grouping (12,345), or a dash."""
    return NONE if value is None or not math.isfinite(value) else f"{int(value):,}"


def seconds(value: float | None) -> str:
    """A duration: 0.42 s, 12.3 s, 3 min 05 s."""
    if value is None or not math.isfinite(value):
        return NONE
    if value < 60:
        return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"
    return f"{int(value // 60)} min {int(value % 60):02d} s"


def shade(value: float | None) -> str:
    """The class of a cell by its error: e0 (1e-8 and less, white) … e10 (1e-1 and more, red)."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "enan"
    if value == 0:
        return "e0"
    return f"e{min(10, max(0, round((math.log10(abs(value)) + 8) / 7 * 10)))}"


def metrics_of(infer: dict) -> dict:
    """`metrics` of an inference result, with `limit` taken from the rows of stage "metric" where it is not stated; none where the weights were changed on purpose."""
    metrics = dict(as_dict(infer.get("metrics")))
    if as_dict(infer.get("weights_change")):
        return metrics
    rows = [row for row in as_list(infer.get("tensors")) if as_dict(row).get("stage") == "metric"]
    metrics.setdefault("limit", next((as_dict(row).get("tolerance") for row in rows), None))
    return metrics


def categories(infer: dict) -> dict[str, str]:
    """Class names by number: from a dict, or from a list of `{id, name}`."""
    given = infer.get("categories")
    pairs = given.items() if isinstance(given, dict) else [(as_dict(c).get("id"), as_dict(c).get("name")) for c in as_list(given)]
    return {as_text(key): as_text(name) for key, name in pairs}


def metric_table(metrics: dict) -> Table | None:
    """The COCO numbers of both sides and the difference; further numbers follow in their order.

    -1 is pycocotools' "no ground truth of this size" and is shown as a dash.
    """
    delta = as_dict(metrics.get("delta"))
    values = {side: as_dict(metrics.get(side)) for side in SIDES}
    if not any(values.values()):
        return None
    others = [key for key, value in metrics.items() if key not in (*SIDES, "delta") and "mAP" in as_dict(value)]
    limit = as_number(metrics.get("limit"))
    known = {name for names in COCO_KEYS for name in names}
    extra = [(key,) for key, value in values["pytorch"].items() if key not in known and as_number(value) is not None]
    table = Table(["number", *SIDE_NAMES.values(), "difference", *others], [])
    for names in (*COCO_KEYS, *extra):
        got = [_first(values[side], names) for side in SIDES]
        change = _first(delta, names)
        if got == [None, None]:
            continue
        cells = [NONE if value == -1 else fixed(value, 5) for value in got]
        cells.append(NONE if got == [-1, -1] else signed(change))
        cells += [fixed(_first(as_dict(metrics[key]), names), 5) for key in others]
        table.rows.append([names[0], *cells])
        table.marks.append("bad" if limit is not None and change is not None and not abs(change) <= limit else "")
    return table


def _first(values: dict, names: tuple[str, ...]) -> float | None:
    return next((as_number(values[name]) for name in names if name in values), None)


def class_table(metrics: dict) -> Table | None:
    """AP per class, largest difference first."""
    sides = [as_dict(as_dict(metrics.get(side)).get("per_class")) for side in SIDES]
    given = as_dict(as_dict(metrics.get("delta")).get("per_class"))
    rows = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        a, b = (as_number(side.get(name)) for side in sides)
        change = as_number(given.get(name))
        if change is None and a is not None and b is not None:
            change = b - a
        empty = (a, b) == (-1, -1)
        cells = [name] + [NONE if value == -1 else fixed(value, 5) for value in (a, b)]
        rows.append((-1.0 if empty or change is None else abs(change), [*cells, NONE if empty else signed(change)]))
    if not rows:
        return None
    rows.sort(key=lambda row: -row[0] if row[0] == row[0] else -9.0)
    return Table(["class", *SIDE_NAMES.values(), "difference"], [cells for _, cells in rows], [""] * len(rows))


def spread(stats: object) -> str:
    """`median (p20–p80)` in milliseconds from a dict, or one number."""
    if not isinstance(stats, dict):
        return fixed(as_number(stats), 2)
    median, low, high = (as_number(stats.get(key)) for key in ("median_ms", "p20_ms", "p80_ms"))
    if median is None:
        return NONE
    return fixed(median, 2) if low is None or high is None else f"{median:.2f} ({low:.2f}–{high:.2f})"


def fps_table(fps: dict) -> Table | None:
    """Speed of both sides: images/s, median with p20–p80 for the whole and for each phase."""
    found = [side for side in SIDES if as_dict(fps.get(side))]
    if not found:
        return None
    phases = list(dict.fromkeys([p for side in found for p in as_dict(as_dict(fps[side]).get("phases"))]))
    phases.sort(key=lambda name: PHASES.index(name) if name in PHASES else len(PHASES))
    extras = [("peak_memory_mb", "peak memory, MB"), ("first_round_seconds", "first round, s")]
    extras = [(key, title) for key, title in extras if any(as_number(fps[side].get(key)) is not None for side in found)]
    by_batch = {size: as_dict(one) for size, one in as_dict(fps.get("by_batch")).items()}
    # More than one batch size: a row for each of them; the numbers on top are those of the first.
    rows = [(f"{SIDE_NAMES[side]}, batch {size}", as_dict(one.get(side))) for size, one in by_batch.items() for side in found if as_dict(one.get(side))] if len(by_batch) > 1 else []
    rows = rows or [(SIDE_NAMES[side], as_dict(fps[side])) for side in found]
    columns = ["side", "images/s", "one image, ms", *[f"{name}, ms" for name in phases], *[t for _, t in extras]]
    table = Table(columns, [], [""] * len(rows))
    for name, stats in rows:
        cells = [fixed(as_number(stats.get("fps")), 1), spread(stats)]
        cells += [spread(as_dict(stats.get("phases")).get(phase)) for phase in phases]
        cells += [fixed(as_number(stats.get(key)), 1) for key, _ in extras]
        table.rows.append([name, *cells])
    return table


def fps_note(fps: dict) -> str:
    """The circumstances of a speed measurement in one line."""
    keys = ("warmup", "warm_up_rounds", "repeats", "rounds", "images", "batch_size", "threads", "device", "input_size", "order")
    known = [f"{key.replace('_', ' ')} {as_text(fps[key])}" for key in keys if fps.get(key) is not None]
    rates = [as_number(as_dict(fps.get(side)).get("fps")) for side in SIDES]
    ratio = [as_number(as_dict(fps.get("jittor_over_pytorch")).get(key)) for key in ("median", "min", "max")]
    if None not in ratio:
        known.append(f"Jittor's images per second over PyTorch's, round by round: {ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})")
    elif rates[0] and rates[1]:
        known.append(f"Jittor does {rates[1] / rates[0]:.2f} times PyTorch's images per second")
    return "; ".join(known)


def gpu_table(data: dict) -> Table | None:
    """Training and inference of both sides on a GPU, from `bench gpu`: one row a setting; a dash where a side did not get there."""
    rows = [as_dict(row) for row in as_list(data.get("rows")) if "precision" in as_dict(row)]
    if not rows:
        return None
    kinds = (("iterations_per_second", "it/s", 2), ("fps", "FPS", 1), ("memory_mb", "memory, MB", 0))
    table = Table(["setting", *[f"{title}, {SIDE_NAMES[side]}" for _, title, _ in kinds for side in SIDES]], [], [""] * len(rows))
    for row in rows:
        cells = [fixed(as_number(as_dict(row.get(side)).get(key)), digits) for key, _, digits in kinds for side in SIDES]
        table.rows.append([f"fp{as_text(row['precision'])}, batch {as_text(row['batch'])}, {as_text(row['size'])}", *cells])
    return table


def gpu_note(data: dict) -> str:
    """The card, the versions and the command of a measurement of `bench gpu`."""
    versions = as_dict(data.get("versions"))
    return "; ".join([as_text(data.get("gpu")), *(f"{name} {as_text(versions[name])}" for name in ("torch", "jittor") if name in versions), as_text(data.get("command"))])


def flatten(value: object, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted key, text) pairs."""
    if isinstance(value, dict):
        return [pair for key, item in value.items() for pair in flatten(item, f"{prefix}.{key}" if prefix else key)]
    return [(prefix, as_text(value))]


def settings(source: Source, keys: tuple[str, ...], bare: tuple[str, ...] = ()) -> Table:
    """The settings found under `keys` in every result file; a key on which the files differ is marked.

    Rows that agree are shown once; rows that disagree name the file of each value. Groups in `bare` lose their
    own name (`versions.torch` is shown as `torch`).
    """
    seen: dict[str, dict[str, list[str]]] = {}
    for part in [source.top, *source.usable()]:
        for key in keys:
            if part.data is None or part.data.get(key) in (None, {}, []):
                continue
            for name, text in flatten(part.data[key], "" if key in bare and isinstance(part.data[key], dict) else key):
                seen.setdefault(name, {}).setdefault(text, []).append(part.name)
    table = Table(["what", "value", "from"], [], left=3)
    for name, values in seen.items():
        for text, origin in values.items():
            table.rows.append([name, text, "" if len(values) == 1 else ", ".join(origin)])
            table.marks.append("" if len(values) == 1 or name.startswith(MEASURED) else "odd")
    if not any(row[2] for row in table.rows):
        table.columns, table.rows = table.columns[:2], [row[:2] for row in table.rows]
    return table


def durations(source: Source) -> tuple[list[tuple[str, str]], str]:
    """Durations by part, and the total: stated by report.json, else the sum of the parts' totals."""
    listed, total = [], 0.0
    for part in source.usable():
        spent = as_dict(part.data.get("durations"))
        values = {key: as_number(value) for key, value in flatten(spent)}
        values = {key: value for key, value in values.items() if value is not None}
        whole = values.get("total", sum(values.values()))
        if values:
            listed.append((part.name, seconds(whole)))
            total += whole
    top = as_dict((source.top.data or {}).get("durations"))
    stated = as_number(top.get("total"))
    return listed, seconds(stated if stated is not None else total if listed else None)


def commands(source: Source) -> list[tuple[str, str]]:
    """The exact commands, that of the whole report first: `command_line` (text or list of words), else `command`."""
    pairs = []
    for part in [source.top, *source.usable()]:
        data = part.data or {}
        given = data.get("command_line") or data.get("argv") or data.get("command")
        words = isinstance(given, list) and all(isinstance(word, str) for word in given)
        pairs.append((part.name, shlex.join(given) if words else as_text(given)))
    return [(name, text) for name, text in pairs if text]


def normal_differences(infer: dict, part: str = "detections") -> list[dict]:
    """The listed differences of `part` in one form: image_id, file_name, kind, cause, margin, ref and cand (each a dict or None).

    Read are nested sides (`ref: {bbox, score, category}`) and flat ones (`box_ref`, `score_ref`, `category_ref`);
    category numbers become names where infer's result has `categories` (id to name), image numbers file names
    where a picture has one.
    """
    names = categories(infer)
    pictures = [item for item in as_list(infer.get("pictures")) if isinstance(item, dict)]
    files = {as_text(item.get("image_id")): as_text(item.get("file_name")) for item in pictures}
    found = []
    for entry in as_list(as_dict(infer.get(part)).get("differences")):
        if not isinstance(entry, dict):
            continue
        image = as_text(entry.get("image_id"))
        one = {"image_id": image, "file_name": as_text(entry.get("file_name")) or files.get(image, "")}
        one |= {"kind": as_text(entry.get("kind")), "cause": as_text(entry.get("cause")) or "unexplained"}
        one["margin"] = as_number(entry.get("margin"))
        for side in ("ref", "cand"):
            nested, box = as_dict(entry.get(side)), entry.get(f"box_{side}")
            if nested or box is not None:
                category = as_text(nested.get("category", entry.get(f"category_{side}", entry.get("category"))))
                score = as_number(nested.get("score", entry.get(f"score_{side}")))
                box = [as_number(item) for item in as_list(nested.get("bbox", box))[:4]]
                one[side] = {"bbox": box, "score": score, "category": names.get(category, category)}
            else:
                one[side] = None
        found.append(one)
    return found


def differences(infer: dict, part: str = "detections") -> Table:
    """Every listed difference between the detections of the two sides, unexplained ones first, then those that only one side has."""
    table = Table(["image", "kind", "cause", "margin", "PyTorch", "Jittor"], [], left=6)
    listed = normal_differences(infer, part)
    listed.sort(key=lambda one: (one["cause"] != "unexplained", one["kind"] == "moved"))
    for one in listed:
        cells = [one["file_name"] or one["image_id"], one["kind"], one["cause"], sci(one["margin"])]
        table.rows.append([*cells, detection_text(one["ref"]), detection_text(one["cand"])])
        table.marks.append("bad" if one["cause"] == "unexplained" else "")
    return table


def detection_text(side: dict | None) -> str:
    """`person 0.5120 [x, y, w, h]`, or a dash where that side has none."""
    if side is None:
        return NONE
    box = ", ".join(fixed(item, 1) for item in side["bbox"])
    return f"{side['category']} {fixed(side['score'], 4)} [{box}]"
