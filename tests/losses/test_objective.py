import pytest
import torch
from torch import nn

from medgan.losses.objective import GeneratorInputs, Objective, weighted_sum
from medgan.models.patchgan import PatchDiscriminator

pytestmark = pytest.mark.unit


class Recorded(nn.Module):
    """A network that records the inputs of its calls."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.calls = []

    def forward(self, *images):
        self.calls.append(images)
        return self.network(*images)


class TwoBlocks(nn.Module):
    def forward(self, image):
        return (2 * image, image**2)


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    source, target, output = torch.rand(3, 2, 1, 16, 16).unbind()
    discriminator = Recorded(PatchDiscriminator(patch=16, base_channels=2)).requires_grad_(False)
    generator, inverse = Recorded(nn.Conv2d(1, 1, 3, padding=1)), Recorded(nn.Conv2d(1, 1, 3, padding=1))
    return GeneratorInputs(
        source, target, output.requires_grad_(), generator, discriminator, Recorded(TwoBlocks()), inverse
    )


def test_generator_inputs_levels_begin_with_image(inputs):
    discriminated = inputs.discriminator.network(inputs.source, inputs.output)
    for levels, image in ((inputs.output_levels, inputs.output), (inputs.target_levels, inputs.target)):
        assert levels[0] is image
        assert len(levels) == 1 + 2
    for level, feature in zip(inputs.output_levels[1:], discriminated.features, strict=True):
        assert torch.equal(level, feature)
    assert torch.equal(inputs.logits, discriminated.logits)


def test_target_levels_use_source_of_same_pair(inputs):
    expected = inputs.discriminator.network(inputs.source, inputs.target).features
    for level, feature in zip(inputs.target_levels[1:], expected, strict=True):
        assert torch.equal(level, feature)


def test_generator_inputs_carry_gradient_for_output_only(inputs):
    assert inputs.logits.requires_grad
    assert all(level.requires_grad for level in (*inputs.output_levels, *inputs.output_features))
    assert not any(level.requires_grad for level in (*inputs.target_levels, *inputs.target_features))


def test_generator_inputs_are_computed_once(inputs):
    for _ in range(3):
        inputs.logits, inputs.output_levels, inputs.target_levels, inputs.output_features, inputs.target_features  # noqa: B018
    seen = inputs.discriminator.calls
    assert [(source is inputs.source, image is inputs.output, image is inputs.target) for source, image in seen] == [
        (True, True, False),
        (True, False, True),
    ]
    assert [image is inputs.output for (image,) in inputs.extractor.calls] == [True, False]


def test_cycled_starts_from_output_and_kept_from_target(inputs):
    assert torch.equal(inputs.cycled, inputs.inverse.network(inputs.output))
    assert torch.equal(inputs.kept, inputs.generator.network(inputs.target))
    inputs.cycled, inputs.kept  # noqa: B018
    assert len(inputs.inverse.calls) == len(inputs.generator.calls) == 1


def test_weighted_sum_computes_only_inputs_that_terms_use(inputs):
    weighted_sum({"l1": (1.0, lambda inputs: (inputs.output - inputs.target).abs().mean())}, inputs)
    assert inputs.discriminator.calls == inputs.extractor.calls == inputs.generator.calls == inputs.inverse.calls == []


def test_weighted_sum_adds_terms_and_logs_both_values(inputs):
    terms = {"two": (0.5, lambda inputs: 2 * inputs.output.mean()), "mean": (20.0, lambda inputs: inputs.target.mean())}
    total, logged = weighted_sum(terms, inputs)
    two, mean = 2 * float(inputs.output.detach().mean()), float(inputs.target.mean())
    assert float(total.detach()) == pytest.approx(0.5 * two + 20 * mean)
    assert {name: float(value) for name, value in logged.items()} == pytest.approx(
        {"two": two, "two_weighted": 0.5 * two, "mean": mean, "mean_weighted": 20 * mean}
    )
    assert total.requires_grad
    assert not any(value.requires_grad for value in logged.values())


def test_weighted_sum_skips_term_of_weight_zero(inputs):
    terms = {"never": (0.0, pytest.fail), "mean": (1.0, lambda inputs: inputs.output.mean())}
    assert list(weighted_sum(terms, inputs)[1]) == ["mean", "mean_weighted"]


def test_objective_without_cycle_share_keeps_its_weights():
    objective = Objective({"cycle": (2.0, pytest.fail)}, {})
    assert objective.at(0.0) is objective.at(1.0) is objective


def test_objective_with_cycle_share_shifts_weight_to_cycle():
    objective = Objective({"cycle": (2.0, len), "l1": (1.0, len)}, {}, cycle_share=(0.0, 0.5))
    weights = [{name: term[0] for name, term in objective.at(done).generator.items()} for done in (0.0, 0.5, 1.0)]
    assert weights == [{"cycle": 0, "l1": 1}, {"cycle": 0.5, "l1": 0.75}, {"cycle": 1, "l1": 0.5}]


def test_generator_inputs_assert_that_network_was_built():
    image = torch.zeros(1, 1, 2, 2)
    inputs = GeneratorInputs(image, image, image, nn.Identity())
    for name, missing in (("output_features", "extractor"), ("logits", "discriminator"), ("cycled", "inverse")):
        with pytest.raises(AssertionError, match=f"no {missing} was built"):
            getattr(inputs, name)
