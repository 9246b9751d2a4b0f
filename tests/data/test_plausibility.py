import numpy as np
import pytest
from refusal import refusal

from medgan.data.plausibility import check_values
from medgan.errors import InputError

pytestmark = pytest.mark.unit

BODY = np.tile(np.float32([-1000, 0, 40, 1000]), (2, 3, 1))


@pytest.mark.parametrize(
    ("array", "modality"),
    [(BODY, "CT"), (BODY - 24, "CT"), (np.abs(BODY) / 100, "PT"), (BODY * 1e6, "MR"), (BODY / 1000 + 0.5, "PT")],
)
def test_check_values_accepts_plausible_image(array, modality):
    check_values(array, modality)


@pytest.mark.parametrize(
    ("array", "modality", "expected"),
    [
        (np.where(BODY > 0, np.nan, BODY), "MR", refusal("E-PLAUSIBLE-01", modality="MR", num_wrong=12, array_size=24)),
        (np.where(BODY > 999, np.inf, BODY), "CT",
         refusal("E-PLAUSIBLE-01", modality="CT", num_wrong=6, array_size=24)),
        (0 * BODY, "PT", refusal("E-PLAUSIBLE-02", modality="PT", low=0.0)),
        (BODY + 5000, "CT", refusal("E-PLAUSIBLE-03", low=4000.0, high=6000.0, median=5020.0)),
        (BODY / 100, "CT", refusal("E-PLAUSIBLE-03", low=-10.0, high=10.0)),
        (BODY + 1000, "CT", refusal("E-PLAUSIBLE-03", low=0.0, high=2000.0)),
        (BODY - 40000, "CT", refusal("E-PLAUSIBLE-03", low=-41000.0, high=-39000.0)),
        (np.where(BODY < 0, -40000, BODY), "CT", refusal("E-PLAUSIBLE-03", low=-40000.0, high=1000.0)),
        (BODY - 100, "PT", refusal("E-PLAUSIBLE-04", mean=-90.0, high=900.0)),
        (BODY * 11, "PT", refusal("E-PLAUSIBLE-04", pet_highest_suv=10000.0, high=11000.0)),
    ],
)  # fmt: skip
def test_check_values_refuses_implausible_image(array, modality, expected):
    with pytest.raises(InputError, check=expected):
        check_values(array.astype(np.float32), modality)
