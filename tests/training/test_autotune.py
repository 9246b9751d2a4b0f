"""How a step is computed: the fastest speed is chosen, a missing one is noted, and the results stay the same."""

import pytest
import torch

from medgan.losses.gradient_shares import GradientNorms
from medgan.training import autotune as speeds
from medgan.training import build_training as training
from medgan.training.autotune import PLAIN, Speed, align, fastest, keep, notes, recall, tags_of_speed
from medgan.training.build_objective import build_objective
from medgan.training.build_training import build_state, build_training, updates_of
from medgan.training.loop import save_epoch, train_epoch
from medgan.training.mixed_precision import NO_BFLOAT16
from medgan.training.runtime import SingleProcess
from medgan.training.state import load_tensors, tensors
from medgan.training.step import train_step

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CHANNELS_LAST = Speed("channels_last")


@pytest.fixture
def clock(monkeypatch):
    """Maps the text of a speed to the seconds that a step with it takes."""
    taken = {}
    monkeypatch.setattr(speeds, "_seconds", lambda step, device: taken[step()])
    return taken


def step_of(speed):
    return lambda: speed.text()


def compiler(monkeypatch):
    """Replaces the compiler of a GPU: torch traces the network, and no code is generated."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled(function, backend="aot_eager", dynamic=False))


def test_fastest_returns_speed_with_shortest_steps(clock):
    clock |= {"contiguous": 1.2, "channels_last": 1.0}
    assert fastest(step_of, CPU) == Speed("channels_last", ratio=pytest.approx(1.2))


def test_fastest_returns_plain_speed_for_gain_within_noise(clock):
    clock |= {"contiguous": 1.02, "channels_last": 1.0}
    assert fastest(step_of, CPU) == PLAIN


def test_fastest_on_gpu_compiles_better_memory_format(clock):
    clock |= {
        "contiguous": 1.0,
        "channels_last": 0.8,
        "channels_last, compiled (default)": 0.5,
        "channels_last, compiled (reduce-overhead)": 0.4,
    }
    assert fastest(step_of, GPU).compiled == "reduce-overhead"
    assert fastest(step_of, GPU, ranks=2).compiled == "default", "graphs are for one process alone"


def test_fastest_skips_unavailable_compilation_and_notes_reason(clock):
    clock |= {"contiguous": 1.0, "channels_last": 2.0}

    def only_eager(speed):
        if speed.compiled != "no":
            raise RuntimeError("Cannot find a working triton installation.\nTry to install it")
        return step_of(speed)

    found = fastest(only_eager, GPU)
    assert found.text() == "contiguous"
    chosen, *notes_of_modes = found.lines()
    assert chosen == "speed: contiguous"
    for mode, note in zip(("default", "reduce-overhead"), notes_of_modes, strict=True):
        assert note.startswith(f"speed: contiguous, compiled ({mode}) ")
        assert "(RuntimeError: Cannot find a working triton installation. Try to install it)" in note


def test_recall_returns_speed_that_keep_wrote(tmp_path):
    assert (recall(tmp_path), notes(tmp_path), tags_of_speed(tmp_path)) == (None, [], {})
    chosen = Speed("channels_last", ratio=1.5, notes=("a line",))
    keep(tmp_path, chosen)
    assert recall(tmp_path) == chosen
    assert notes(tmp_path) == ["speed: channels_last, 1.50 times the plain step", "a line"]
    assert tags_of_speed(tmp_path) == {"medgan.speed": "channels_last"}


def stepped(config, batches, speed):
    torch.manual_seed(0)
    state = build_state(config, SingleProcess(CPU), speed)
    feed = batches()
    rows = [train_step(state, build_objective(config), feed, updates_of(config)) for _ in range(2)]
    return state, {name: float(value) for name, value in rows[-1].items()}


MEDGAN = {"loss__lambda_style": 1e-2, "loss__style_blocks": [1], "train__ema_decay": 0.5}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("speed", [CHANNELS_LAST, Speed("channels_last", "default")])
@pytest.mark.timeout(120)
def test_fast_step_has_losses_and_weight_names_of_plain_step(small, batches, speed, precision, monkeypatch):
    compiler(monkeypatch)
    config = small(**MEDGAN, train__precision=precision)
    (plain, expected), (fast, found) = (stepped(config, batches, one) for one in (PLAIN, speed))
    assert found == pytest.approx(expected, rel=1e-3 if precision == "float32" else 0.05, abs=1e-4)
    assert tensors(fast).keys() == tensors(plain).keys()


@pytest.mark.timeout(120)
def test_new_training_of_same_shapes_and_validation_compile_nothing(small, batches, monkeypatch):
    compiler(monkeypatch)
    traced = torch._dynamo.utils.counters["frames"]
    torch.compiler.reset()
    traced.clear()
    first, _ = stepped(small(**MEDGAN), batches, Speed(compiled="default"))
    once = traced["total"]
    assert once > 0
    stepped(small(**MEDGAN, train__seed=5), batches, Speed(compiled="default"))
    first.generator.eval()(torch.rand(3, 1, 16, 16))
    assert traced["total"] == once


@pytest.mark.timeout(120)
def test_shares_of_compiled_step_equal_those_of_plain_step(small, batches, monkeypatch):
    compiler(monkeypatch)
    config, shares = small(**MEDGAN, loss__lambda_content=1e-2, loss__content_blocks=[1]), []
    for speed in (PLAIN, Speed(compiled="default")):
        state, objective, norms = (
            build_state(config, SingleProcess(CPU), speed),
            build_objective(config),
            GradientNorms(),
        )
        train_step(state, norms.watching(objective), batches(), updates_of(config))
        shares.append(norms.shares(objective))
    assert shares[1] == pytest.approx(shares[0], rel=1e-3) and {"style", "content"} <= set(shares[0])


def test_extractor_memory_format_is_not_shared_between_trainings(small, batches):
    fast, plain = (stepped(small(**MEDGAN), batches, one)[0].extractor for one in (CHANNELS_LAST, PLAIN))
    assert [is_channels_last(one) for one in (fast, plain)] == [True, False]


def test_align_lays_out_saved_moments_like_weights(small, batches):
    saved = tensors(stepped(small(), batches, PLAIN)[0])
    state = build_state(small(), SingleProcess(CPU), CHANNELS_LAST)
    load_tensors(state, saved)
    align([state.generator_optimizer, state.discriminator_optimizer, None])
    for weight, moments in state.generator_optimizer.state.items():
        assert moments["exp_avg"].stride() == weight.stride()
    assert tensors(state).keys() == saved.keys()
    assert all(torch.equal(value, saved[name]) for name, value in tensors(state).items())


@pytest.fixture
def prepared(make_slices):
    """Replaces a prepared data set."""

    class Prepared:
        def slices(self, role, *, given="source"):
            return make_slices(7)

    return Prepared()


def is_channels_last(network):
    return any(weight.dim() == 4 and not weight.is_contiguous() for weight in network.parameters())


def test_speed_is_measured_once_per_network_shape_and_noted(small, tmp_path, monkeypatch):
    monkeypatch.setattr(speeds, "LIMIT_S", 0.0)
    training._fastest.cache_clear()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    for number, values in enumerate(({}, {"train__seed": 9, "optim__generator_lr": 1e-3, "loss__lambda_l1": 0.0})):
        training._speed(small(**values, train__speed="measured"), SingleProcess(CPU), tmp_path / str(number))
    assert torch.equal(torch.get_rng_state(), before)
    assert training._fastest.cache_info().misses == 1
    assert recall(tmp_path / "0") == recall(tmp_path / "1")
    training._speed(small(generator__num_blocks=1, train__speed="measured"), SingleProcess(CPU), tmp_path / "other")
    assert training._fastest.cache_info().misses == 2
    assert notes(tmp_path / "other")[0].startswith("speed: c")


def test_resumed_training_uses_recorded_speed(small, prepared, tmp_path):
    config = small(train__speed="measured")
    keep(tmp_path, Speed("channels_last", ratio=2.0))
    for epochs in (1, 2):
        going = build_training(config, prepared, SingleProcess(CPU), folder=tmp_path)
        assert is_channels_last(going.state.generator)
        train_epoch(going)
        save_epoch(going, tmp_path)
        assert going.state.epoch == epochs


def test_plain_training_records_no_speed(small, prepared, tmp_path):
    going = build_training(small(), prepared, SingleProcess(CPU), folder=tmp_path)
    assert not is_channels_last(going.state.generator)
    assert recall(tmp_path) is None


def test_every_rank_uses_speed_of_first_rank(small, tmp_path):
    class Second(SingleProcess):
        def gather(self, rows):
            return [CHANNELS_LAST, *rows]

    found = training._speed(small(train__speed="measured"), Second(CPU, rank=1, size=2), tmp_path)
    assert found == CHANNELS_LAST
    assert recall(tmp_path) is None, "the first rank writes"


def test_missing_bfloat16_is_noted_once(small, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "has_bfloat16", lambda device: False)
    for _ in range(2):
        training._speed(small(train__precision="bfloat16"), SingleProcess(CPU), tmp_path)
    assert notes(tmp_path) == ["speed: contiguous", NO_BFLOAT16]


def test_began_on_several_workers_is_noted_and_not_measured(small, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_fastest", lambda *_: pytest.fail("one process stepped alone"))
    config = small(train__speed="measured", loss__adversarial="began", discriminator__network="autoencoder")
    training._speed(config, SingleProcess(CPU, size=2), tmp_path)
    assert training.BEGAN_IN_STEP in notes(tmp_path)
