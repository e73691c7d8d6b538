"""Optimisers over five steps, clipping, and schedules over twelve."""

from __future__ import annotations

from alignment.atlas.entry import Entry, normal

INPUTS = {"w": normal(3, 2), "x": normal(5, 3)}


def steps(name: str, torch: str, jittor: str = "", between: tuple[str, str] = ("", "")) -> Entry:
    """Five steps on a small least-squares loss; the weights at the end."""
    theirs = (f"p = torch.nn.Parameter(w.clone())\no = {torch}\nfor _ in range(5):\n    o.zero_grad()\n    ((x @ p - 1) ** 2).sum().backward()\n"
              + (f"    {between[0]}\n" if between[0] else "") + "    o.step()\np.detach()")
    clip = f"    o.backward(loss)\n    {between[1]}\n    o.step()\n" if between[1] else "    o.step(loss)\n"
    ours = f"p = w.clone()\no = {jittor or torch}\nfor _ in range(5):\n    loss = ((jt.matmul(x, p) - 1) ** 2).sum()\n{clip}p"
    return Entry(name, theirs, ours, INPUTS, grad=())


def rates(name: str, torch: str, jittor: str = "", count: int = 12, early: bool = False) -> Entry:
    """The rate before each step. The optimiser is SGD at 0.4; `early`: Jittor's schedule is asked once before the first step."""
    theirs = f"p = torch.nn.Parameter(torch.zeros(1))\no = optim.SGD([p], 0.4)\ns = optim.lr_scheduler.{torch}\nfound = []\nfor k in range({count}):\n    found.append(o.param_groups[0]['lr'])\n    o.step()\n    s.step({'1.0' if 'Plateau' in torch else ''})\n[np.float64(v) for v in found]"
    ours = f"o = optim.SGD([jt.zeros(1)], 0.4)\ns = {jittor or 'jt.lr_scheduler.' + torch}\n{'s.step()' + chr(10) if early else ''}found = []\nfor k in range({count}):\n    found.append(o.lr if o.param_groups[0].get('lr') is None else o.param_groups[0]['lr'])\n    s.step({'1.0' if 'Plateau' in torch else ''})\n[np.float64(v) for v in found]"
    return Entry(name, theirs, ours, smooth=False)


ENTRIES = [
    steps("SGD", "optim.SGD([p], 0.02)"),
    steps("SGD, momentum", "optim.SGD([p], 0.02, momentum=0.9)"),
    steps("SGD, momentum, dampening", "optim.SGD([p], 0.02, momentum=0.9, dampening=0.3)"),
    steps("SGD, nesterov", "optim.SGD([p], 0.02, momentum=0.9, nesterov=True)"),
    steps("SGD, weight decay", "optim.SGD([p], 0.02, weight_decay=0.1)"),
    steps("Adam", "optim.Adam([p], 0.02)"),
    steps("Adam, weight decay", "optim.Adam([p], 0.02, weight_decay=0.1)"),
    steps("Adam, betas and eps", "optim.Adam([p], 0.02, betas=(0.8, 0.9), eps=1e-3)"),
    steps("AdamW", "optim.AdamW([p], 0.02)"),
    steps("AdamW, weight decay 0.05", "optim.AdamW([p], 0.02, weight_decay=0.05)"),
    steps("RMSprop", "optim.RMSprop([p], 0.02)"),
    steps("RMSprop, alpha 0.9", "optim.RMSprop([p], 0.02, alpha=0.9)", "optim.RMSprop([p], 0.02, alpha=0.9)"),
    steps("Adagrad", "optim.Adagrad([p], 0.02)"),
    steps("Adamax", "optim.Adamax([p], 0.02)"),
    steps("clip_grad_norm", "optim.SGD([p], 0.02)", between=("torch.nn.utils.clip_grad_norm_([p], 0.5)", "o.clip_grad_norm(0.5)")),
    rates("StepLR", "StepLR(o, 3, 0.5)"),
    rates("MultiStepLR", "MultiStepLR(o, [2, 5], 0.5)"),
    rates("ExponentialLR", "ExponentialLR(o, 0.8)"),
    rates("CosineAnnealingLR", "CosineAnnealingLR(o, 8, 0.01)"),
    rates("CosineAnnealingLR, within its period", "CosineAnnealingLR(o, 8, 0.01)", count=8),
    *(rates(f"{call.partition('(')[0]}, asked once before the first step", call, early=True, count=8)
      for call in ("MultiStepLR(o, [2, 5], 0.5)", "ExponentialLR(o, 0.8)", "CosineAnnealingLR(o, 8, 0.01)")),
    rates("LambdaLR", "LambdaLR(o, lambda k: 1 / (k + 1))", "optim.LambdaLR(o, lambda k: 1 / (k + 1))"),
    rates("ReduceLROnPlateau", "ReduceLROnPlateau(o, 'min', 0.5, 2)"),
    rates("LinearLR", "LinearLR(o, 0.1, 1.0, 5)"),
    rates("OneCycleLR", "OneCycleLR(o, 0.4, 20)"),
]
