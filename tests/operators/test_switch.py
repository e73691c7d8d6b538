"""Where the operators stand in, and that looking at modules changes nothing: the whole model, forward and backward."""
import dataclasses

import numpy as np
import pytest

from tests.training.test_training_step import batch_of
from tests.training.tiny import tiny_config

pytestmark = pytest.mark.jittor


@pytest.fixture(scope="module")
def config(tmp_path_factory, jittor):
    return tiny_config(tmp_path_factory.mktemp("operators"))


def one_step(config, jittor, around=None):
    """Losses and gradients of one step, then running statistics."""
    from jt_nanodet import detector, training_step
    from jt_nanodet.weight_rules import lively_weights

    model = detector.build_model(config.model.arch)
    detector.load_state(model, lively_weights({k: v.shape for k, v in detector.state_arrays(model).items()}, 1))
    step = training_step.TrainingStep(model, config)
    if around is not None:
        around(model)
    report, _, _ = step.compute(batch_of(0), keep_gradients=True)
    return {"loss": np.float32(report.loss), **report.gradients, **{k: v for k, v in detector.state_arrays(model).items() if "running" in k}}


def test_seen_modules_change_no_bit(config, jittor):
    """As the runner's taps do: every module's execute replaced, every input and output kept and looked at."""
    kept = []

    def watch(model):
        for module in model.modules():
            if type(module).__name__ not in ("Sequential", "ModuleList"):
                def execute(*inputs, original=module.execute):
                    output = original(*inputs)
                    kept.append((type(inputs), inputs, output))
                    return output
                module.execute = execute

    plain, seen = one_step(config, jittor), one_step(config, jittor, watch)
    assert len(kept) > 300
    for k, v in plain.items():
        np.testing.assert_array_equal(v, seen[k], err_msg=k)


def test_ordinary_graph_agrees(config, jittor):
    from jt_nanodet.operators import switch

    ours = one_step(config, jittor)
    assert switch.use(False) is True
    try:
        plain = one_step(config, jittor)
    finally:
        switch.use(True)
    assert not np.array_equal(ours["backbone.conv1.0.weight"], plain["backbone.conv1.0.weight"]), "the switch must change something"
    norm = np.sqrt(sum((plain[k].astype(np.float64) ** 2).sum() for k in plain if "running" not in k))
    for k, v in plain.items():
        # whole gradients: an activation within rounding of its kink moves single elements by more
        assert np.linalg.norm(ours[k].astype(np.float64) - v) <= 1e-3 * max(np.linalg.norm(v), 1e-3 * norm), k


def test_float64_and_other_settings_go_the_ordinary_way(jittor):
    from jt_nanodet import layers
    from jt_nanodet.operators import switch

    assert switch.usable(jittor.ones(2)) and not switch.usable(jittor.ones(2).float64())
    x = jittor.array(np.random.RandomState(0).randn(1, 4, 9, 9).astype(np.float32))
    uneven = layers.Conv2d(4, 4, 3, (1, 2), 1, groups=4, bias=True)
    assert tuple(uneven(x).shape) == (1, 4, 9, 5)
    own = layers.Conv2d(4, 4, 3, 2, 1, groups=4, bias=True)
    before = switch.use(False)
    try:
        plain = own(x).numpy()
    finally:
        switch.use(before)
    np.testing.assert_allclose(own(x).numpy(), plain, rtol=0, atol=1e-6)
    assert tuple(layers.Upsample(scale_factor=2, mode="bilinear", align_corners=True)(x).shape) == (1, 4, 18, 18)


def test_statistics_are_left_alone_where_frozen(config, jittor):
    from jt_nanodet.layers import BatchNorm2d

    bn = BatchNorm2d(4)
    bn.eval()
    bn(jittor.ones((2, 4, 3, 3))).sync()
    assert bn.running_mean.numpy().tolist() == [0] * 4 and bn.num_batches_tracked.item() == 0


def test_other_optimisers_go_the_ordinary_way(config, jittor):
    from jt_nanodet import detector, training_step

    sgd = dataclasses.replace(config.schedule, optimizer=dataclasses.replace(config.schedule.optimizer, name="SGD"))
    step = training_step.TrainingStep(detector.build_model(config.model.arch), dataclasses.replace(config, schedule=sgd))
    assert not step.fused.usable()
