import math
from dataclasses import replace

import pytest
import torch
from refusal import refusal

from medgan.errors import InputError
from medgan.metrics.pixel_errors import mae, mse, psnr
from medgan.metrics.ssim import ms_ssim, ssim, uqi
from medgan.metrics.validation_metrics import (
    DIRECTIONS,
    SliceMetrics,
    comparable,
    direction,
    merit,
    overall_means,
    overall_spread,
    patient_means,
    preference,
    slice_metrics,
)
from medgan.metrics.vif import vif
from medgan.tasks import TASKS, Image

pytestmark = pytest.mark.unit

CT = TASKS["pet2ct"].target
PET = Image(modality="PT", unit="SUV", window=(0.0, 20.0), background=0.0, body_above=0.1)
MR = Image(modality="MR", unit="a.u.", window=None, background=0.0, body_above=0.1)


def whole(image):
    return torch.ones(image.shape, dtype=torch.bool)


def test_slice_metrics_compare_images_on_0_to_255_and_errors_in_unit():
    output, target = torch.full((1, 1, 16, 16), -1.0), torch.full((1, 1, 16, 16), 1.0)
    values = {name: value.item() for name, value in slice_metrics(output, target, whole(target), image=CT).items()}
    for name in ("ssim", "ssim_body"):
        assert values.pop(name) == pytest.approx(1e-4, rel=1e-2)
    assert values.pop("mae_hu_bone") == 3000.0
    assert math.isnan(values.pop("mae_hu_air")) and math.isnan(values.pop("mae_hu_soft"))
    assert values == {
        "psnr": 0.0, "psnr_body": 0.0, "mse": 255.0**2, "mse_body": 255.0**2, "uqi": 0.0, "uqi_body": 0.0,
        "mae_hu": 3000.0, "mae_hu_body": 3000.0, "bias_hu": -3000.0, "bias_hu_body": -3000.0,
    }  # fmt: skip


def test_slice_metrics_of_body_use_mask():
    output, target = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    target[..., :8, :] = 0.5
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 6:12, :] = True
    values = {name: value.item() for name, value in slice_metrics(output, target, mask, image=PET).items()}
    assert values["mae_suv"] == pytest.approx(10 * 0.5 / 2)
    assert values["mae_suv_body"] == pytest.approx(10 * 0.5 * 2 / 6)
    assert values["bias_suv_body"] == pytest.approx(-10 * 0.5 * 2 / 6)
    assert values["mse_body"] == pytest.approx((127.5 * 0.5) ** 2 * 2 / 6)


def test_tissue_errors_use_hu_of_target_inside_body():
    """Worked by hand: -301, -300, 149 and 150 HU, the last pixel of each row outside the body."""
    window = (-1000.0, 1000.0)
    hu = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    hu[..., 0, :] = torch.tensor([-301.0, -300.0, 149.0, 150.0] + [0.0] * 8)
    hu[..., 1, :] = hu[..., 0, :]
    error = torch.zeros_like(hu)
    error[..., 0, :4] = torch.tensor([1.0, 2.0, 4.0, 8.0])
    error[..., 1, :4] = torch.tensor([1000.0, 1000.0, 1000.0, 1000.0])
    mask = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    mask[..., 0, :4] = True
    values = slice_metrics((hu + error) / 1000, hu / 1000, mask, image=replace(CT, window=window))
    assert values["mae_hu_air"].item() == pytest.approx(1.0)
    assert values["mae_hu_soft"].item() == pytest.approx((2 + 4) / 2)
    assert values["mae_hu_bone"].item() == pytest.approx(8.0)
    assert values["mae_hu_body"].item() == pytest.approx(15 / 4)


def test_ct_tissues_leave_no_gap_and_do_not_overlap():
    (first, low), (high, other), (another, last) = CT.tissues.values()
    assert list(CT.tissues) == ["air", "soft", "bone"]
    assert (low, high, other, another) == (-300.0, -300.0, 150.0, 150.0)
    assert first <= -32768 and last > 32767, "the whole range of a CT"
    assert math.isfinite(first) and math.isfinite(last), "they are written to dataset.json"
    assert PET.tissues == {}


def test_slice_metrics_use_window_of_data_set():
    output, target = torch.zeros(1, 1, 16, 16), torch.full((1, 1, 16, 16), 0.5)
    values = slice_metrics(output, target, whole(target), image=replace(CT, window=(-100.0, 300.0)))
    assert values["mae_hu"].item() == pytest.approx(100.0)


def test_slice_metrics_of_batch_equal_plain_functions():
    torch.manual_seed(0)
    output, target = (torch.rand(2, 3, 1, 176, 176) * 2 - 1).unbind()
    mask = torch.rand(3, 1, 176, 176) < 0.4
    values = slice_metrics(output, target, mask, image=CT)
    grey, grey_target = (output + 1) / 2 * 255, (target + 1) / 2 * 255
    for suffix, region in {"": None, "_body": mask}.items():
        for metric in (ssim, psnr, vif, ms_ssim):
            expected = metric(grey, grey_target, data_range=255.0, mask=region)
            torch.testing.assert_close(values[metric.__name__ + suffix], expected, equal_nan=True)
        torch.testing.assert_close(values[f"mse{suffix}"], mse(grey, grey_target, mask=region))
        torch.testing.assert_close(values[f"uqi{suffix}"], uqi(grey.round(), grey_target.round(), mask=region))
        hu, hu_target = 500 + 1500 * output.double(), 500 + 1500 * target.double()
        torch.testing.assert_close(values[f"mae_hu{suffix}"], mae(hu, hu_target, mask=region))
    assert all(value.shape == (3,) for value in values.values())


def test_uqi_of_slice_treats_nearly_black_background_as_black():
    target = torch.full((1, 1, 64, 64), -1.0)
    target[..., 26:38, 26:38] = torch.rand(12, 12)
    output = (target + 1e-3 * torch.rand(target.shape)).clamp(max=1)
    assert slice_metrics(output, target, whole(target), image=CT)["uqi"].item() > 0.98
    assert uqi((output + 1) * 127.5, (target + 1) * 127.5).item() < 0.6, (
        "the value without rounding to whole grey levels"
    )


@pytest.mark.parametrize(
    ("size", "left_out"), [(16, {"vif", "ms_ssim"}), (40, {"vif", "ms_ssim"}), (41, {"ms_ssim"}), (176, set())]
)
def test_slice_metrics_leave_out_metrics_that_need_larger_images(size, left_out):
    image = torch.rand(1, 1, size, size)
    names = {name.removesuffix("_body") for name in slice_metrics(image, image, whole(image), image=PET)}
    assert {"ssim", "psnr", "mse", "uqi", "vif", "ms_ssim", "mae_suv", "bias_suv"} - names == left_out


def test_slice_metrics_of_arbitrary_unit_have_no_errors_in_unit():
    image = torch.rand(1, 1, 16, 16)
    names = {name.removesuffix("_body") for name in slice_metrics(image, image, whole(image), image=MR)}
    assert names == {"ssim", "psnr", "mse", "uqi"}


def test_lpips_of_slice_is_given_function_on_minus_one_to_one():
    output, target = torch.rand(2, 4, 1, 16, 16) * 2 - 1
    assert "lpips" not in slice_metrics(output, target, whole(target), image=PET)
    values = slice_metrics(
        output, target, whole(target), image=PET, perceptual=lambda mine, theirs: (mine - 2 * theirs).sum(dim=(1, 2, 3))
    )
    torch.testing.assert_close(values["lpips"], (output - 2 * target).sum(dim=(1, 2, 3)))
    torch.testing.assert_close(values["lpips_body"], values["lpips"])
    mask = whole(target)
    mask[:2, :, :, :8] = False
    mask[3] = False
    body = slice_metrics(
        output, target, mask, image=PET, perceptual=lambda mine, theirs: (mine - 2 * theirs).sum(dim=(1, 2, 3))
    )["lpips_body"]
    expected = ((output + 1) * mask - 1 - 2 * ((target + 1) * mask - 1)).sum(dim=(1, 2, 3))
    torch.testing.assert_close(body[:3], expected[:3])
    assert body[3].isnan()


def test_slice_metrics_with_empty_mask_are_nan_in_body_only():
    image = torch.rand(1, 1, 176, 176)
    values = slice_metrics(image, image * 0.9, ~whole(image), image=CT)
    for name, value in values.items():
        assert value.isnan().item() is name.endswith(("_body", "_air", "_soft", "_bone")), name


def test_overall_means_are_means_of_patient_means():
    rows = [
        SliceMetrics("a", 0, {"mae": 1.0}),
        SliceMetrics("b", 0, {"mae": 10.0}),
        SliceMetrics("a", 1, {"mae": 2.0}),
        SliceMetrics("a", 2, {"mae": 6.0}),
    ]
    patients = patient_means(rows)
    assert patients == {"a": {"mae": 3.0}, "b": {"mae": 10.0}}
    assert overall_means(patients) == {"mae": 6.5}, "not 4.75, the mean over slices"


def test_patient_means_ignore_order_of_rows():
    rows = [SliceMetrics("p", number, {"mae": 0.1 * number, "ssim": 1 / (number + 1)}) for number in range(20)]
    assert patient_means(rows[::-1]) == patient_means(rows[::2] + rows[1::2]) == patient_means(rows)


def test_patient_means_leave_out_slices_without_body():
    nan = math.nan
    rows = [
        SliceMetrics("a", 0, {"body": nan, "all": 1.0}),
        SliceMetrics("a", 1, {"body": 4.0, "all": 3.0}),
        SliceMetrics("b", 0, {"body": nan, "all": 6.0}),
    ]
    patients = patient_means(rows)
    assert patients == {"a": {"body": 4.0, "all": 2.0}, "b": {"all": 6.0}}
    assert overall_means(patients) == {"body": 4.0, "all": 4.0}


def test_overall_spread_is_sample_standard_deviation_over_patients():
    patients = {"a": {"mae": 1.0, "ssim": 0.5}, "b": {"mae": 2.0}, "c": {"mae": 4.0}}
    assert overall_spread(patients) == {"mae": pytest.approx(math.sqrt(7 / 3)), "ssim": 0.0}
    assert overall_spread({}) == {}


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("ssim", "max"), ("val/ssim", "max"), ("test/psnr_body", "max"), ("val/mse", "min"), ("val/mae_hu_body", "min"),
        ("val/ms_ssim", "max"), ("test/ms_ssim_body", "max"), ("mae_hu_bone", "min"), ("bias_suv_body", "min"),
        ("val/lpips", "min"), ("vif_body", "max"), ("uqi", "max"),
    ],
)  # fmt: skip
def test_direction_follows_from_metric_name(name, better):
    assert direction(name) == better


@pytest.mark.parametrize(
    ("name", "value", "counted", "expected"),
    [
        ("val/ssim", 0.8, 0.8, 0.8), ("test/psnr_body", -3.0, -3.0, -3.0), ("mae_hu", 90.0, 90.0, -90.0),
        ("val/bias_hu", -7.0, 7.0, -7.0), ("bias_suv_body", 7.0, 7.0, -7.0), ("test/bias_hu_body", 0.0, 0.0, 0.0),
    ],
)  # fmt: skip
def test_merit_is_higher_for_better_value_and_for_bias_nearer_to_zero(name, value, counted, expected):
    assert (comparable(name, value), merit(name, value)) == (counted, expected)


@pytest.mark.parametrize("name", ["val/ssim", "val/mae_hu", "val/bias_hu"])
def test_merit_of_nan_is_nan(name):
    assert math.isnan(merit(name, math.nan))


@pytest.mark.parametrize("name", ["val/ssimilarity", "ms", "loss/generator/style"])
def test_direction_refuses_unknown_metric(name):
    with pytest.raises(InputError, check=refusal("E-METRIC-02", directions=", ".join(DIRECTIONS), name=name)):
        direction(name)


def test_direction_is_known_for_every_slice_metric():
    image = torch.zeros(1, 1, 176, 176)
    names = slice_metrics(image, image, whole(image), image=CT, perceptual=lambda *_: torch.zeros(1))
    assert {direction(name) for name in names} == {"min", "max"}
    assert {first for first in DIRECTIONS if not any(f"{name}_".startswith(f"{first}_") for name in names)} == set()


@pytest.mark.parametrize(
    ("metric", "words"), [("val/ssim", "higher"), ("mae_hu_body", "lower"), ("test/bias_suv", "nearer to 0")]
)
def test_preference_says_which_values_are_better(metric, words):
    assert preference(metric) == f"{words} is better"
