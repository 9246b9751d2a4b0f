"""Which features a training compares, as its provenance has it."""

import pytest
import torch

from medgan.config import with_values
from medgan.losses.feature_scale import OXFORD, ScaledFeatures, reference_image, sizes_of
from medgan.models.extractor import load_extractor
from medgan.models.extractor_weights import save_encoder
from medgan.presets.by_name import configured
from medgan.training.frozen_features import feature_facts, frozen_extractor

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


def medgan(**extractor):
    values = {f"extractor.{name}": value for name, value in extractor.items()}
    return configured("medgan", {"extractor.weights": "random", **values}, small=True)


def test_feature_facts_are_empty_without_features():
    assert feature_facts(configured("unet_l1", {})) == {}


def test_feature_facts_name_random_weights_scale_and_factor_of_each_block():
    facts = feature_facts(medgan())
    assert (facts["network"], facts["weights"], facts["scale"]) == ("vgg19", "random", "oxford")
    assert len(facts["factors"]) == 2 and all(float(factor) > 10 for factor in facts["factors"])


def test_feature_facts_hold_digest_of_weights_and_no_path(tmp_path):
    facts = []
    for name, factor in (("of_patient_smith", 1), ("again", 1), ("other", 2)):
        encoder = load_extractor("in_domain", "random", 4)
        encoder.features[0][0].weight.data.mul_(factor)
        save_encoder(tmp_path / name, encoder)
        facts.append(feature_facts(medgan(network="in_domain", weights=str(tmp_path / name))))
    assert facts[0] == facts[1] and facts[0]["weights"] != facts[2]["weights"]
    assert facts[0]["weights"].startswith("sha256 ") and "smith" not in str(facts)


def test_feature_facts_of_features_as_they_are_have_no_factors():
    assert feature_facts(medgan(scale="as_is")) == {"network": "vgg19", "weights": "random", "scale": "as_is"}


def test_frozen_extractor_gives_features_of_configured_scale():
    image, blocks = reference_image().float(), {}
    for scale in ("oxford", "as_is"):
        blocks[scale] = frozen_extractor(medgan(scale=scale).extractor, 2, CPU, "float32")(image)
    scaled = frozen_extractor(medgan().extractor, 2, CPU, "float32")
    assert sizes_of(scaled) == pytest.approx(OXFORD[:2], rel=1e-3)
    assert float(blocks["as_is"][0].abs().max()) < float(blocks["oxford"][0].abs().max()) / 10


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_frozen_extractor_is_frozen_and_shared(precision):
    config = with_values(medgan(), {"train.precision": precision})
    extractor = frozen_extractor(config.extractor, 2, CPU, precision)
    assert isinstance(extractor, ScaledFeatures) and not extractor.training
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert frozen_extractor(config.extractor, 2, CPU, precision) is extractor
    assert all(block.dtype == torch.float32 for block in extractor(reference_image().float()))
