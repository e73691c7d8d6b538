"""Tables of the parts that not every report has: training steps, and `torch_ref` against the original."""

from __future__ import annotations

from reports.source import as_dict, as_list, as_number, as_text
from reports.tables import NONE, Table, count, fixed, plain, sci

#: Titles of these parts, by the folder that holds them; the folder's name is the section's anchor.
TITLES = {"train": "Training steps", "upstream": "torch_ref and the original"}
#: So many steps stand on a page: the first ones and those with failures come first.
MAX_STEPS = 50


def steps(result: dict) -> Table | None:
    """A row a step: loss on both sides from the same state, and of the port's free run; the row that came nearest to its bound. None without steps."""
    listed = [as_dict(step) for step in as_list(as_dict(result.get("train")).get("steps"))]
    if not listed:
        return None
    chosen = sorted(sorted(range(len(listed)), key=lambda at: not as_number(listed[at].get("failed")))[:MAX_STEPS])
    table = Table(["step", "loss, PyTorch", "loss, Jittor", "loss, Jittor running freely", "compared", "failed", "floors", "nearest to its bound", "of the bound"], [], left=1)
    for step in (listed[at] for at in chosen):
        loss, worst = as_dict(as_dict(step.get("loss")).get("total")), [as_dict(one) for one in as_dict(step.get("worst")).values()]
        near = max(worst, key=lambda one: as_number(one.get("of_bound")) or 0.0, default={})
        failed = as_number(step.get("failed"))
        table.rows.append([count(as_number(step.get("step"))), *(fixed(as_number(loss.get(key)), 6) for key in ("ref", "cand", "free")), count(as_number(step.get("rows"))), count(failed),
                           as_text(step.get("floors")) or NONE, as_text(near.get("name")) or NONE, plain(as_number(near.get("of_bound")))])
        table.marks.append("bad" if failed else "")
    return table


def steps_note(result: dict) -> str:
    """What the table rests on, in one line."""
    train, listed = as_dict(result.get("train")), as_list(as_dict(result.get("train")).get("steps"))
    optimizer = as_text(as_dict(result.get("optimizer")).get("name"))
    left = f"; {len(listed) - MAX_STEPS:,} more steps stand in train/result.json" if len(listed) > MAX_STEPS else ""
    drift = as_number(as_dict(as_dict(listed[-1]).get("free")).get("weights_rel_l2")) if listed else None
    return (f"{optimizer + '; ' if optimizer else ''}{count(as_number(train.get('rows_compared')))} numbers and tensors; before every step the port takes over the reference's state"
            + (f"; running freely, its weights lie {sci(drift)} apart at the end (relative L2)" if drift is not None else "") + left)


def original(result: dict) -> Table | None:
    """A row a group of what `torch_ref` and upstream's own code were compared in; None without groups."""
    listed = [as_dict(one) for one in as_list(result.get("groups"))]
    if not listed:
        return None
    rows = [[as_text(one.get("what")), count(as_number(one.get("compared"))), count(as_number(one.get("equal")))] for one in listed]
    return Table(["what", "compared", "equal in every bit"], rows, ["" if row[1] == row[2] else "bad" for row in rows], 1)


def original_note(result: dict) -> str:
    """Which clone it was."""
    clone = as_dict(result.get("upstream"))
    return f"RangiLyu/nanodet at {as_text(clone.get('commit'))[:12]}, {as_text(clone.get('state'))}" if clone else ""
