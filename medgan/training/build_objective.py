"""Builds the objective from settings: every published method is a choice of weights over these terms."""

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
    """Builds the weighted terms of `loss` for both networks."""
    loss = config.loss
    terms = discriminator_terms(loss) if uses_discriminator(config) else {}
    return Objective(generator_terms(loss), terms, loss.cycle_share)


def generator_terms(loss: LossConfig) -> GeneratorTerms:
    """Returns the terms that the generator minimizes, by name."""
    adversarial, distance, weights = ADVERSARIAL[loss.adversarial], PIXEL[loss.cycle_distance], loss.perceptual_weights

    def style(features: tuple[Tensor, ...]) -> list[Tensor]:
        return [features[block - 1] for block in loss.style_blocks]

    def content(features: tuple[Tensor, ...]) -> list[Tensor]:
        return [features[block - 1] for block in loss.content_blocks]

    return {
        "adversarial": (loss.lambda_adversarial, lambda inputs: adversarial.fool(inputs.logits)),
        "l1": (loss.lambda_l1, lambda inputs: l1_loss(inputs.output, inputs.target)),
        "l2": (loss.lambda_l2, lambda inputs: l2_loss(inputs.output, inputs.target)),
        "tv": (loss.lambda_tv, lambda inputs: tv_loss(inputs.output)),
        "stages": (
            loss.lambda_stages,
            lambda inputs: torch.stack([l1_loss(stage, inputs.target) for stage in inputs.within]).sum(),
        ),
        "perceptual": (
            loss.lambda_perceptual,
            lambda inputs: perceptual_loss(inputs.output_levels, inputs.target_levels, weights),
        ),
        "feature_matching": (
            loss.lambda_feature_matching,
            lambda inputs: feature_matching_loss(inputs.output_levels[1:], inputs.target_levels[1:]),
        ),
        "style": (
            loss.lambda_style,
            lambda inputs: style_loss(style(inputs.output_features), style(inputs.target_features)),
        ),
        "content": (
            loss.lambda_content,
            lambda inputs: content_loss(content(inputs.output_features), content(inputs.target_features)),
        ),
        "cycle": (loss.lambda_cycle, lambda inputs: distance(inputs.cycled, inputs.source)),
        "identity": (loss.lambda_identity, lambda inputs: l1_loss(inputs.kept, inputs.target)),
        "mmd": (loss.lambda_mmd, lambda inputs: mmd_loss(inputs.output, inputs.target)),
        "kl": (loss.lambda_kl, lambda inputs: kl_loss(*inputs.within)),
    }


def discriminator_terms(loss: LossConfig) -> DiscriminatorTerms:
    """Returns the terms that the discriminator minimizes, by name."""
    adversarial = ADVERSARIAL[loss.adversarial]

    def real_and_fake(inputs: DiscriminatorInputs) -> Tensor:
        """Returns -E[log D(x,y)] - E[log(1 - D(G(y),y))] for the vanilla objective."""
        return adversarial.real(inputs.real.logits) + adversarial.fake(inputs.fake.logits)

    def balanced(inputs: DiscriminatorInputs) -> Tensor:
        """Returns L(x,y) - k L(G(y),y), and then updates k from the errors L (Berthelot et al., BEGAN, eq. 5)."""
        discriminator = inputs.discriminator
        assert isinstance(discriminator, AutoencoderDiscriminator), "the configuration ensures it"
        real, fake = adversarial.real(inputs.real.logits), adversarial.fake(inputs.fake.logits)
        total = real + discriminator.fake_share.clone() * fake
        discriminator.rebalance(real.detach(), -fake.detach())
        return total

    def margin(inputs: DiscriminatorInputs) -> Tensor:
        """Returns max(0, m - L_perceptual), so that output and target stay apart (Wang et al., PAN, eq. 4)."""
        output, target = (inputs.output, *inputs.fake.features), (inputs.target, *inputs.real.features)
        return torch.relu(loss.margin - perceptual_loss(output, target, loss.perceptual_weights))

    def penalty(inputs: DiscriminatorInputs) -> Tensor:
        network, source = inputs.discriminator, inputs.source
        return gradient_penalty(lambda image: network(source, image).logits, inputs.target, inputs.output)

    return {
        "adversarial": (loss.lambda_discriminator, balanced if loss.adversarial == "began" else real_and_fake),
        "margin": (loss.lambda_margin, margin),
        "gradient_penalty": (loss.lambda_gradient_penalty, penalty),
    }
