"""`medgan inspect`: its values are compared with values worked by hand, and every preset is inspected."""

import io
import json
import re
import sys

import pytest
from rich.console import Console

from medgan.benchmark.phantom_dataset import prepared_phantoms
from medgan.cli.main import main
from medgan.cli.network_view import show_networks
from medgan.config import flatten, with_values
from medgan.presets.by_name import PRESETS, configured
from medgan.workflows.describe_networks import described, read_discriminator, read_generator


def shown(config) -> str:
    """Returns the text that is printed for a configuration."""
    sink = io.StringIO()
    show_networks(Console(file=sink, width=120, highlight=False), described(config))
    return sink.getvalue()


def rows_of(text: str) -> list[list[str]]:
    """Returns the rows of the table of the objective: network, term, weight."""
    table = text[text.index("\nobjective\n") :].split("\nupdates a step:")[0]
    return [line.split()[:3] for line in table.splitlines() if line.startswith(("generator", "discriminator"))]


@pytest.fixture
def inspect(monkeypatch, capsys):
    """Runs `medgan inspect`; returns its exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["medgan", "inspect", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


def test_inspect_prints_networks_and_objective_of_medgan(inspect):
    code, text, error = inspect()
    assert (code, error) == (0, "")
    assert re.search(r"^generator: casnet\n326,479,878 parameters, .* receptive field: the whole image$", text, re.M)
    discriminator = (
        r"^discriminator: patch, sees source_and_image\n135,617 parameters, .* receptive field: 16 x 16 pixels$"
    )
    assert re.search(discriminator, text, re.M)
    assert re.findall(r"^blocks\.(\d) +as blocks\.0 +([\d,]+)$", text, re.M) == [
        (str(block), "54,403,457") for block in range(1, 6)
    ]
    assert rows_of(text) == [
        ["generator", "adversarial", "1"],
        ["generator", "perceptual", "20"],
        ["generator", "style", "0.0001"],
        ["generator", "content", "0.0001"],
        ["discriminator", "adversarial", "1"],
    ]
    assert "blocks 1, 5 of the features" in text and "blocks 1, 2, 3, 4 of the features (vgg19" in text
    assert "updates a step: 3 of the generator (Adam 0.0002), 1 of the discriminator (Adam 0.0002)" in text


def test_show_networks_prints_objective_of_pix2pix():
    text = shown(configured("pix2pix", {}))
    assert rows_of(text) == [
        ["generator", "adversarial", "1"],
        ["generator", "l1", "100"],
        ["discriminator", "adversarial", "0.5"],
    ]
    assert "receptive field: 70 x 70 pixels" in text
    assert "beta1 0.5, learning rate linear" in text


@pytest.mark.parametrize("patch", [1, 16, 34, 70, 142, 286])
def test_receptive_field_of_patch_discriminator_is_patch(patch):
    config = configured("medgan", {"data.size": 512, "discriminator.patch": patch})
    assert read_discriminator(config).field == patch


def test_receptive_field_of_patch_as_large_as_image_is_whole_image():
    assert read_discriminator(configured("medgan", {"data.size": 16, "discriminator.patch": 16})).field is None


def test_receptive_field_of_shallow_network_equals_value_worked_by_hand():
    """id_cgan: twelve 3x3 convolutions with stride 1, 1 + 12 x 2 pixels."""
    reading = read_generator(configured("id_cgan", {}))
    assert [layer.kind.removeprefix("transposed ") for layer in reading.layers] == ["3x3, stride 1"] * 12
    assert reading.field == 25


def test_receptive_field_of_residual_network_equals_value_worked_by_hand():
    """cyclegan: 7x7, two strided 3x3, nine blocks of two 3x3 at stride 4, two transposed, 7x7, from last to first.

    An output pixel needs 7; the middle one's 7 come from 5 before a transposed 3x3 with stride 2, and these from 3;
    eighteen 3x3 add 36; a strided 3x3 makes n into 2 n + 1; the first 7x7 adds 6.
    """
    assert read_generator(configured("cyclegan", {})).field == 2 * (2 * (3 + 36) + 1) + 1 + 6


def test_flops_and_shapes_of_16_pixel_discriminator_equal_values_by_hand():
    """4x4 convolutions: 2 x 16 x in x out for each pixel they give."""
    by_hand = 2 * 16 * (2 * 64 * 128**2 + 64 * 128 * 127**2 + 128 * 1 * 126**2)
    for spectral_norm in (False, True):
        reading = read_discriminator(configured("medgan", {"discriminator.spectral_norm": spectral_norm}))
        assert reading.flops == by_hand
        assert [layer.shape for layer in reading.layers] == [(64, 128, 128), (128, 127, 127), (1, 126, 126)]
        assert [layer.parameters for layer in reading.layers] == [2112, 131200, 2049]


def test_flops_grow_with_number_of_pixels():
    small, large = (
        read_generator(configured("id_cgan", {"data.size": size, "discriminator.patch": 34})) for size in (64, 128)
    )
    assert large.flops == 4 * small.flops
    assert (large.parameters, large.field) == (small.parameters, small.field)


def test_show_networks_omits_terms_without_weight_and_unused_discriminator():
    text = shown(configured("unet_l1", {}))
    assert rows_of(text) == [["generator", "l1", "1"]]
    assert "discriminator: none, no weighted term looks at one" in text
    assert "of the discriminator (Adam" not in text
    assert read_discriminator(configured("unet_l1", {})) is None


def test_show_networks_names_settings_without_effect():
    text = shown(configured("cyclegan", {}, small=True))
    named = re.search(r"Without effect here: (.*)", text)[1].split(", ")
    assert {"generator.depth", "generator.block", "generator.block_input"} <= set(named)
    assert "generator.num_blocks" not in named


def test_show_networks_prints_latent_of_vae():
    text = shown(configured("vae", {}, small=True))
    assert rows_of(text) == [["generator", "l1", "1"], ["generator", "kl", "0.01"]]
    assert re.search(r"^mean +1x1, stride 1 +16 x 4 x 4 ", text, re.M)
    assert re.search(r"^log_variance +1x1, stride 1 +16 x 4 x 4 ", text, re.M)


def test_show_networks_prints_autoencoder_discriminator():
    settings = {"loss.adversarial": "began", "discriminator.network": "autoencoder"}
    text = shown(configured("cgan", settings, small=True))
    assert "discriminator: autoencoder, sees source_and_image" in text
    assert "began, of the discriminator's logits" in text


def test_show_networks_explains_cycle_share():
    text = shown(configured("discogan", {}, small=True))
    assert "cycle share r from 0.01 to 0.5: (1 - r) x other terms + r x cycle" in text


def test_inspect_lists_every_setting_with_path_and_value(inspect):
    code, text, _ = inspect("--preset", "unet_l1", "--quick", "--settings", "--set", "train.epochs=7")
    assert code == 0
    lines = text[text.index("\nsettings\n") :].splitlines()[2:]
    listed = {path: value.strip() for path, _, value in (line.partition(" ") for line in lines)}
    config = configured("unet_l1", {"train.epochs": 7}, small=True)
    assert listed == {path: str(value) for path, value in flatten(config).items()}
    assert listed["train.epochs"] == "7"


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("small", [True, False], ids=["quick", "whole"])
def test_show_networks_accepts_every_preset(name, small):
    config = configured(name, {}, small=small)
    text = shown(config)
    assert f"generator: {config.generator.network}" in text
    weighted = {(network, term) for network, term, weight in rows_of(text) if float(weight) > 0}
    assert (("generator", "adversarial") in weighted) is (name not in ("vae", "unet_l1"))
    assert len(weighted) == len(rows_of(text))
    for reading in filter(None, (read_generator(config), read_discriminator(config))):
        assert 0 < sum(layer.parameters for layer in reading.layers) <= reading.parameters
        assert reading.flops > 0
        assert reading.field is None or 1 <= reading.field < config.data.size


@pytest.mark.parametrize("num_blocks", [1, 6, 8])
def test_read_generator_accepts_every_number_of_blocks(num_blocks):
    for network in ("casnet", "resnet"):
        config = configured("medgan", {"generator.network": network, "generator.num_blocks": num_blocks}, small=True)
        assert read_generator(with_values(config, {"data.size": 64})).flops > 0


def test_receptive_field_of_autoencoder_is_whole_image():
    config = configured("unet_l1", {"generator.network": "autoencoder", "data.size": 64}, small=True)
    assert read_generator(config).field is None  # group normalization looks at the whole image


@pytest.mark.parametrize(
    ("arguments", "values", "error_code"),
    [
        (["--preset", "medgn"], r"got 'medgn'\. Did you mean medgan\?", "E-PRESET-01"),
        (["--preset", "nothing_like_it"], r"got 'nothing_like_it'\. \[", "E-PRESET-01"),
        (["--set", "generator.blocks=3"], r"'generator.blocks'; did you mean generator.block\?", "E-CONFIG-17"),
        (["--set", "data.size=100"], "data.size: .* 16, .* 100", "E-CONFIG-01"),
        (["--preset", "discogan", "--set", "data.size=40"], "data.size 40: generator: .* 40 x 40", "E-NETWORK-13"),
        (["--preset", "pan", "--set", "discriminator.patch=34"], "loss.perceptual_weights: .* 4 .* 5", "E-LOSS-02"),
        (["--quick", "--set", "discriminator.patch=142"], "discriminator.patch: .* 64; got 142", "E-CONFIG-03"),
    ],
)
def test_inspect_refuses_settings_that_do_not_fit(inspect, arguments, values, error_code):
    code, text, error = inspect(*arguments)
    assert (code, text) == (2, "")
    assert re.search(values, error)
    assert error.endswith(f" [{error_code}]\n")
    assert len(error.splitlines()) == 1


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return prepared_phantoms(tmp_path_factory.mktemp("phantoms"), size=32, slices=4).folder


MEASURED = (
    "--quick", "--set", "data.size=32", "--set", "generator.base_channels=4", "--set", "extractor.weights=random",
    "--set", "train.batch_size=2",
)  # fmt: skip


def test_inspect_prints_json_of_networks_and_objective(inspect):
    code, text, _ = inspect("--preset", "medgan", "--json", "--settings")
    found = json.loads(text)
    assert code == 0 and "shares" not in found
    assert found["generator"]["parameters"] == 326_479_878 and found["discriminator"]["field"] == 16
    assert found["objective"]["generator"] == {"adversarial": 1, "perceptual": 20, "style": 1e-4, "content": 1e-4}
    assert found["settings"]["extractor.scale"] == "oxford"


def test_inspect_measures_share_of_each_term_at_start_and_later(inspect, dataset, tmp_path):
    options = ("--data", str(dataset), "--output", str(tmp_path), *MEASURED)
    code, text, _ = inspect(*options, "--json")
    shares = json.loads(text)["shares"]
    assert code == 0 and set(shares) == {"start", "later"}
    for found in shares.values():
        assert set(found) == {"adversarial", "perceptual", "style", "content"}
        assert sum(found.values()) == pytest.approx(1) and min(found.values()) > 1e-3
    assert shares["start"] != shares["later"]
    code, text, _ = inspect(*options)
    table = text.split("share of the gradient at the generator's output\n")[1]
    first = [line.split()[0] for line in table.splitlines()[1:5]]
    assert first == ["adversarial", "perceptual", "style", "content"]
    assert f"{100 * shares['start']['style']:.3g} %" in table


def test_inspect_names_terms_that_hardly_act(inspect, dataset, tmp_path):
    options = ("--data", str(dataset), "--output", str(tmp_path), *MEASURED, "--set", "extractor.scale=as_is")
    code, text, _ = inspect(*options)
    assert code == 0
    assert "Below 1 %: style, content. These terms hardly act; a larger weight changes that." in text


def test_inspect_refuses_data_that_are_not_there(inspect, tmp_path):
    code, _, error = inspect("--data", str(tmp_path / "none"), "--output", str(tmp_path / "home"), *MEASURED)
    assert code == 2 and str(tmp_path / "none") in error
    assert not (tmp_path / "home").exists()
