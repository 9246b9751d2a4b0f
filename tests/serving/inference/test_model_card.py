from __future__ import annotations

import pytest

from medgan.config import Config, with_values
from medgan.inference.model_card import card_of, summary_of
from medgan.inference.saved_model import ModelManifest

pytestmark = pytest.mark.unit

TEST = {
    "a1": {"ssim": 0.8, "psnr": 20.0, "mae_hu": 100.0, "mae_hu_body": 200.0},
    "b2": {"ssim": 0.9, "psnr": 22.0, "mae_hu": 110.0, "mae_hu_body": 220.0},
}


def test_card_names_intended_use_data_set_and_test_results(manifest: ModelManifest) -> None:
    card = card_of(manifest, data="phantoms: 3 train patients (18 slices)", test=TEST)
    assert card.startswith("# medgan-pet2ct\n**Synthetic images for research only; not for diagnosis.**\n")
    for line in (
        "| Source | PT in SUV; window 0 to 10 SUV |",
        "| Target | CT in HU; window -1000 to 2000 HU |",
        "| Data set | phantoms: 3 train patients (18 slices); digest d1 |",
        "| ssim | 0.85 | 0.071 |",
        "| mae_hu_body | 210 | 14 |",
        "| data.size | 16 |",
        "## On 2 held-out test patients",
    ):
        assert line in card.splitlines(), line
    assert "Research only" in card and "lesions above all" in card


def test_card_names_percentiles_for_source_without_window(manifest: ModelManifest) -> None:
    windowless = {"task": "mr_motion", "source_window": None, "target_window": None}
    card = card_of(manifest.model_copy(update=windowless), data="some", test={"a1": {"ssim": 0.5}})
    assert "| Source | MR in a.u.; window 0.5 to 99.5 percentile of each volume |" in card.splitlines()


def test_card_names_no_folder_of_training_machine(manifest: ModelManifest) -> None:
    config = with_values(Config(), {"extractor.weights": "/home/Jane/vgg.pth", "metrics.lpips_weights": "/home/Jane"})
    fields = {"config": config.model_dump(mode="json")}
    card = card_of(manifest.model_copy(update=fields), data="some", test=TEST)
    assert "/home" not in card and "| extractor.weights | vgg.pth |" in card.splitlines()


def test_summary_is_one_paragraph(manifest: ModelManifest) -> None:
    assert summary_of(manifest, TEST) == (
        "PT (SUV) to CT (HU), 16 px of 4 mm, data set d1. 2 test patients: ssim 0.85 ± 0.071, psnr 21 ± 1.4, "
        "mae_hu 105 ± 7.1, mae_hu_body 210 ± 14. Synthetic images for research only; not for diagnosis."
    )
