"""From settings to the objective: every published method is a choice of weights over these terms."""

from __future__ import annotations

import torch
from torch import Tensor

from medgan.config import Config, LossConfig, uses_discriminator
from medgan.losses.adversarial import ADVERSARIAL, gradient_penalty
from medgan.losses.batch_matching import feature_matching_loss, mmd_loss
from medgan.losses.content import content_loss
from medgan.losses.kl_divergence import kl_loss
from medgan.losses.objective import DiscriminatorInputs, DiscriminatorTerms, GeneratorTerms, Objective
from medgan.losses.perceptual import perceptual_loss
from medgan.losses.pixel_losses import PIXEL, l1_loss, l2_loss, tv_loss
from medgan.losses.style import style_loss
from medgan.models.began import AutoencoderDiscriminator


def build_objective(config: Config) -> Objective:
    """The weighted terms of `loss`, for both networks."""
    loss = config.loss
    judged = discriminator_terms(loss) if uses_discriminator(config) else {}
    return Objective(generator_terms(loss), judged, loss.cycle_share)


def generator_terms(loss: LossConfig) -> GeneratorTerms:
    """What the generator minimizes, by name."""
    adversarial, distance, weights = ADVERSARIAL[loss.adversarial], PIXEL[loss.cycle_distance], loss.perceptual_weights

    def style(features: tuple[Tensor, ...]) -> list[Tensor]:
        return [features[block - 1] for block in loss.style_blocks]

    def content(features: tuple[Tensor, ...]) -> list[Tensor]:
        return [features[block - 1] for block in loss.content_blocks]

    return {
        "adversarial": (loss.lambda_adversarial, lambda views: adversarial.fool(views.logits)),
        "l1": (loss.lambda_l1, lambda views: l1_loss(views.output, views.target)),
        "l2": (loss.lambda_l2, lambda views: l2_loss(views.output, views.target)),
        "tv": (loss.lambda_tv, lambda views: tv_loss(views.output)),
        "stages": (
            loss.lambda_stages,
            lambda views: torch.stack([l1_loss(stage, views.target) for stage in views.within]).sum(),
        ),
        "perceptual": (
            loss.lambda_perceptual,
            lambda views: perceptual_loss(views.output_levels, views.target_levels, weights),
        ),
        "feature_matching": (
            loss.lambda_feature_matching,
            lambda views: feature_matching_loss(views.output_levels[1:], views.target_levels[1:]),
        ),
        "style": (
            loss.lambda_style,
            lambda views: style_loss(style(views.output_features), style(views.target_features)),
        ),
        "content": (
            loss.lambda_content,
            lambda views: content_loss(content(views.output_features), content(views.target_features)),
        ),
        "cycle": (loss.lambda_cycle, lambda views: distance(views.cycled, views.source)),
        "identity": (loss.lambda_identity, lambda views: l1_loss(views.kept, views.target)),
        "mmd": (loss.lambda_mmd, lambda views: mmd_loss(views.output, views.target)),
        "kl": (loss.lambda_kl, lambda views: kl_loss(*views.within)),
    }


def discriminator_terms(loss: LossConfig) -> DiscriminatorTerms:
    """What the discriminator minimizes, by name."""
    adversarial = ADVERSARIAL[loss.adversarial]

    def judged(seen: DiscriminatorInputs) -> Tensor:
        """-E[log D(x,y)] - E[log(1 - D(G(y),y))] for the vanilla objective."""
        return adversarial.real(seen.real.logits) + adversarial.fake(seen.fake.logits)

    def judged_in_balance(seen: DiscriminatorInputs) -> Tensor:
        """L(x,y) - k L(G(y),y), after which k follows the errors L (Berthelot et al., BEGAN, eq. 5)."""
        judge = seen.discriminator
        assert isinstance(judge, AutoencoderDiscriminator), "the configuration sees to it"
        real, fake = adversarial.real(seen.real.logits), adversarial.fake(seen.fake.logits)
        total = real + judge.fake_share.clone() * fake
        judge.rebalance(real.detach(), -fake.detach())
        return total

    def margin(seen: DiscriminatorInputs) -> Tensor:
        """max(0, m - L_perceptual): the discriminator keeps the two apart (Wang et al., PAN, eq. 4)."""
        output, target = (seen.output, *seen.fake.features), (seen.target, *seen.real.features)
        return torch.relu(loss.margin - perceptual_loss(output, target, loss.perceptual_weights))

    def penalty(seen: DiscriminatorInputs) -> Tensor:
        return gradient_penalty(lambda image: seen.discriminator(seen.source, image).logits, seen.target, seen.output)

    return {
        "adversarial": (loss.lambda_discriminator, judged_in_balance if loss.adversarial == "began" else judged),
        "margin": (loss.lambda_margin, margin),
        "gradient_penalty": (loss.lambda_gradient_penalty, penalty),
    }
