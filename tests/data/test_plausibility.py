import numpy as np
import pytest

from medgan.data.plausibility import check_values
from medgan.errors import InputError

BODY = np.tile(np.float32([-1000, 0, 40, 1000]), (2, 3, 1))


@pytest.mark.parametrize(
    ("array", "modality"),
    [(BODY, "CT"), (BODY - 24, "CT"), (np.abs(BODY) / 100, "PT"), (BODY * 1e6, "MR"), (BODY / 1000 + 0.5, "PT")],
)
def test_what_a_scanner_makes_is_taken(array, modality):
    check_values(array, modality)


@pytest.mark.parametrize(
    ("array", "modality", "message"),
    [
        (np.where(BODY > 0, np.nan, BODY), "MR", "MR: 12 of 24 pixels are NaN or infinite; expected numbers"),
        (np.where(BODY > 999, np.inf, BODY), "CT", "CT: 6 of 24 pixels are NaN or infinite"),
        (0 * BODY, "PT", r"PT: every pixel is 0\.0; expected an image"),
        (BODY + 5000, "CT", "CT: expected HU, about -1000 in air .*; got 4000 to 6000 with a median of 5020"),
        (BODY / 100, "CT", "CT: expected HU, .*; got -10 to 10 with"),
        (BODY + 1000, "CT", "CT: expected HU, .*; got 0 to 2000"),
        (BODY - 40000, "CT", "CT: expected HU"),
        (np.where(BODY < 0, -40000, BODY), "CT", "CT: expected HU, .*got -40000"),
        (BODY - 100, "PT", "PT: expected SUV, .*; got a mean of -90 and a highest value of 900"),
        (BODY * 11, "PT", "PT: expected SUV, .* at most 10000; .* a highest value of 11000"),
    ],
)
def test_what_no_scanner_makes_is_refused(array, modality, message):
    with pytest.raises(InputError, match=message):
        check_values(array.astype(np.float32), modality)
