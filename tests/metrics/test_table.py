import math

import pytest
import torch

from medgan.metrics.image import mse, psnr, ssim
from medgan.metrics.table import DIRECTIONS, Row, direction, overall_means, patient_means, slice_metrics


def test_image_metrics_are_taken_on_0_to_255_and_errors_in_the_unit():
    output, target = torch.full((1, 1, 16, 16), -1.0), torch.full((1, 1, 16, 16), 1.0)
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    values = slice_metrics(output, target, mask, window=(-1000.0, 2000.0), unit="HU")
    assert {name: value.tolist() for name, value in values.items() if name != "ssim"} == {
        "psnr": [0.0], "mse": [255.0**2], "mae_hu": [3000.0], "mae_hu_body": [3000.0]
    }  # fmt: skip


def test_the_body_is_where_the_mask_is():
    output, target = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    target[..., :8, :] = 0.5
    mask = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    mask[..., 4:12, :] = True
    mask[..., 4:6, :] = False
    values = slice_metrics(output, target, mask, window=(0.0, 20.0), unit="SUV")
    assert values["mae_suv"].tolist() == [pytest.approx(10 * 0.5 / 2)]
    assert values["mae_suv_body"].tolist() == [pytest.approx(10 * 0.5 * 2 / 6)]


def test_a_batch_of_slices_agrees_with_the_plain_functions():
    torch.manual_seed(0)
    output, target = (torch.rand(2, 3, 1, 16, 16) * 2 - 1).unbind()
    mask = torch.ones(3, 1, 16, 16, dtype=torch.bool)
    values = slice_metrics(output, target, mask, window=(-1000.0, 2000.0), unit="HU")
    grey, grey_target = (output + 1) / 2 * 255, (target + 1) / 2 * 255
    torch.testing.assert_close(values["ssim"], ssim(grey, grey_target, data_range=255.0))
    torch.testing.assert_close(values["psnr"], psnr(grey, grey_target, data_range=255.0))
    torch.testing.assert_close(values["mse"], mse(grey, grey_target))
    assert all(value.shape == (3,) for value in values.values())


def test_slices_make_a_patients_mean_and_patients_the_overall_one():
    rows = [Row("a", 0, {"mae": 1.0}), Row("b", 0, {"mae": 10.0}), Row("a", 1, {"mae": 2.0}), Row("a", 2, {"mae": 6.0})]
    patients = patient_means(rows)
    assert patients == {"a": {"mae": 3.0}, "b": {"mae": 10.0}}
    assert overall_means(patients) == {"mae": 6.5}, "not 4.75, the mean over slices"


def test_means_do_not_depend_on_the_order_of_rows():
    rows = [Row("p", number, {"mae": 0.1 * number, "ssim": 1 / (number + 1)}) for number in range(20)]
    assert patient_means(rows[::-1]) == patient_means(rows[::2] + rows[1::2]) == patient_means(rows)


def test_slices_without_a_body_are_left_out_of_the_means():
    nan = math.nan
    rows = [
        Row("a", 0, {"body": nan, "all": 1.0}),
        Row("a", 1, {"body": 4.0, "all": 3.0}),
        Row("b", 0, {"body": nan, "all": 6.0}),
    ]
    patients = patient_means(rows)
    assert patients == {"a": {"body": 4.0, "all": 2.0}, "b": {"all": 6.0}}
    assert overall_means(patients) == {"body": 4.0, "all": 4.0}


@pytest.mark.parametrize(
    ("name", "better"),
    [("ssim", "max"), ("val/ssim", "max"), ("test/psnr", "max"), ("val/mse", "min"), ("val/mae_hu_body", "min")],
)
def test_the_better_direction_follows_from_the_name(name, better):
    assert direction(name) == better


def test_every_metric_of_a_slice_has_a_direction():
    image, mask = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    for name in slice_metrics(image, image, mask, window=(0.0, 1.0), unit="SUV"):
        assert direction(name) in ("min", "max")
    assert set(DIRECTIONS.values()) == {"min", "max"}
