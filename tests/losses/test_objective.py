import pytest
import torch
from torch import nn

from medgan.losses.objective import GeneratorInputs, Objective, weighted_sum
from medgan.models.patchgan import PatchDiscriminator


class Recorded(nn.Module):
    """Remembers what it was called with."""

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
def views():
    torch.manual_seed(0)
    source, target, output = torch.rand(3, 2, 1, 16, 16).unbind()
    discriminator = Recorded(PatchDiscriminator(patch=16, base_channels=2)).requires_grad_(False)
    there, back = Recorded(nn.Conv2d(1, 1, 3, padding=1)), Recorded(nn.Conv2d(1, 1, 3, padding=1))
    return GeneratorInputs(source, target, output.requires_grad_(), there, discriminator, Recorded(TwoBlocks()), back)


def test_levels_begin_with_the_pixels(views):
    judged = views.discriminator.network(views.source, views.output)
    for levels, image in ((views.output_levels, views.output), (views.target_levels, views.target)):
        assert levels[0] is image
        assert len(levels) == 1 + 2
    for level, feature in zip(views.output_levels[1:], judged.features, strict=True):
        assert torch.equal(level, feature)
    assert torch.equal(views.logits, judged.logits)


def test_the_target_is_judged_beside_its_own_source(views):
    expected = views.discriminator.network(views.source, views.target).features
    for level, feature in zip(views.target_levels[1:], expected, strict=True):
        assert torch.equal(level, feature)


def test_only_the_outputs_views_carry_gradient(views):
    assert views.logits.requires_grad
    assert all(level.requires_grad for level in (*views.output_levels, *views.output_features))
    assert not any(level.requires_grad for level in (*views.target_levels, *views.target_features))


def test_everything_is_computed_once_however_often_it_is_looked_at(views):
    for _ in range(3):
        views.logits, views.output_levels, views.target_levels, views.output_features, views.target_features  # noqa: B018
    seen = views.discriminator.calls
    assert [(source is views.source, image is views.output, image is views.target) for source, image in seen] == [
        (True, True, False),
        (True, False, True),
    ]
    assert [image is views.output for (image,) in views.extractor.calls] == [True, False]


def test_the_way_back_starts_from_the_output_and_identity_from_the_target(views):
    assert torch.equal(views.cycled, views.inverse.network(views.output))
    assert torch.equal(views.kept, views.generator.network(views.target))
    views.cycled, views.kept  # noqa: B018
    assert len(views.inverse.calls) == len(views.generator.calls) == 1


def test_nothing_is_computed_that_no_term_looks_at(views):
    weighted_sum({"l1": (1.0, lambda views: (views.output - views.target).abs().mean())}, views)
    assert views.discriminator.calls == views.extractor.calls == views.generator.calls == views.inverse.calls == []


def test_the_total_is_the_weighted_sum_and_the_log_has_both(views):
    terms = {"two": (0.5, lambda views: 2 * views.output.mean()), "mean": (20.0, lambda views: views.target.mean())}
    total, logged = weighted_sum(terms, views)
    two, mean = 2 * float(views.output.detach().mean()), float(views.target.mean())
    assert float(total.detach()) == pytest.approx(0.5 * two + 20 * mean)
    assert {name: float(value) for name, value in logged.items()} == pytest.approx(
        {"two": two, "two_weighted": 0.5 * two, "mean": mean, "mean_weighted": 20 * mean}
    )
    assert total.requires_grad
    assert not any(value.requires_grad for value in logged.values())


def test_a_term_of_weight_zero_is_never_evaluated(views):
    terms = {"never": (0.0, pytest.fail), "mean": (1.0, lambda views: views.output.mean())}
    assert list(weighted_sum(terms, views)[1]) == ["mean", "mean_weighted"]


def test_without_a_share_the_weights_are_the_same_throughout():
    objective = Objective({"cycle": (2.0, pytest.fail)}, {})
    assert objective.at(0.0) is objective.at(1.0) is objective


def test_with_a_share_the_cycle_grows_at_the_cost_of_the_others():
    objective = Objective({"cycle": (2.0, len), "l1": (1.0, len)}, {}, cycle_share=(0.0, 0.5))
    weights = [{name: term[0] for name, term in objective.at(done).generator.items()} for done in (0.0, 0.5, 1.0)]
    assert weights == [{"cycle": 0, "l1": 1}, {"cycle": 0.5, "l1": 0.75}, {"cycle": 1, "l1": 0.5}]


def test_a_view_of_a_network_that_was_not_built_is_a_defect():
    image = torch.zeros(1, 1, 2, 2)
    views = GeneratorInputs(image, image, image, nn.Identity())
    for name, missing in (("output_features", "extractor"), ("logits", "discriminator"), ("cycled", "inverse")):
        with pytest.raises(AssertionError, match=f"no {missing} was built"):
            getattr(views, name)
