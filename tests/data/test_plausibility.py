import numpy as np
import pytest
from refusal import refusal

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
        (
            np.where(BODY > 0, np.nan, BODY),
            "MR",
            refusal("E-PLAUSIBLE-01", modality="MR", num_wrong="12", array_size="24"),
        ),
        (
            np.where(BODY > 999, np.inf, BODY),
            "CT",
            refusal("E-PLAUSIBLE-01", modality="CT", num_wrong="6", array_size="24"),
        ),
        (0 * BODY, "PT", refusal("E-PLAUSIBLE-02", modality="PT", low="0.0")),
        (BODY + 5000, "CT", refusal("E-PLAUSIBLE-03")),
        (BODY / 100, "CT", refusal("E-PLAUSIBLE-03")),
        (BODY + 1000, "CT", refusal("E-PLAUSIBLE-03")),
        (BODY - 40000, "CT", refusal("E-PLAUSIBLE-03")),
        (np.where(BODY < 0, -40000, BODY), "CT", refusal("E-PLAUSIBLE-03")),
        (BODY - 100, "PT", refusal("E-PLAUSIBLE-04")),
        (BODY * 11, "PT", refusal("E-PLAUSIBLE-04")),
    ],
)
def test_what_no_scanner_makes_is_refused(array, modality, message):
    with pytest.raises(InputError, check=message):
        check_values(array.astype(np.float32), modality)
