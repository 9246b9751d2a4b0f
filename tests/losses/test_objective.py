import pytest
import torch
from torch import nn

from medgan.losses.adversarial import LSGAN, VANILLA
from medgan.losses.objective import Objective, Views
from medgan.models.patch import PatchDiscriminator, PatchOutput


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
    return Views(source, target, output.requires_grad_(), discriminator, Recorded(TwoBlocks()))


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


def test_nothing_is_computed_that_no_term_looks_at(views):
    Objective(VANILLA, {"l1": (1.0, lambda views: (views.output - views.target).abs().mean())}).generator_loss(views)
    assert views.discriminator.calls == views.extractor.calls == []


def test_the_total_is_the_weighted_sum_and_the_log_has_both(views):
    objective = Objective(
        VANILLA,
        {"two": (0.5, lambda views: 2 * views.output.mean()), "mean": (20.0, lambda views: views.target.mean())},
    )
    total, logged = objective.generator_loss(views)
    two, mean = 2 * float(views.output.detach().mean()), float(views.target.mean())
    assert float(total.detach()) == pytest.approx(0.5 * two + 20 * mean)
    assert {name: float(value) for name, value in logged.items()} == pytest.approx(
        {"two": two, "two_weighted": 0.5 * two, "mean": mean, "mean_weighted": 20 * mean}
    )
    assert total.requires_grad
    assert not any(value.requires_grad for value in logged.values())


def test_a_term_of_weight_zero_is_never_evaluated(views):
    objective = Objective(VANILLA, {"never": (0.0, pytest.fail), "mean": (1.0, lambda views: views.output.mean())})
    assert list(objective.generator_loss(views)[1]) == ["mean", "mean_weighted"]


def test_no_terms_at_all_give_zero(views):
    total, logged = Objective(VANILLA, {}).generator_loss(views)
    assert total == 0
    assert logged == {}


@pytest.mark.parametrize("adversarial", [VANILLA, LSGAN])
def test_the_discriminator_minimizes_both_halves_the_right_way_round(adversarial):
    real, fake = torch.tensor([2.0, 1.0]), torch.tensor([-1.0, 0.5])
    loss = Objective(adversarial, {}).discriminator_loss(real, fake)
    torch.testing.assert_close(loss, adversarial.real(real) + adversarial.fake(fake))
    assert loss < Objective(adversarial, {}).discriminator_loss(fake, real)


def test_features_without_an_extractor_are_a_defect():
    image = torch.zeros(1, 1, 2, 2)
    views = Views(image, image, image, lambda *_: PatchOutput(image, ()), None)
    with pytest.raises(AssertionError, match="no extractor was built"):
        views.output_features  # noqa: B018
