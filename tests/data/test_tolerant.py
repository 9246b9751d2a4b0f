"""`tolerant` restores the settings of pydicom, also with several threads at once."""

import threading
import warnings

import pytest
from pydicom.config import IGNORE, settings

from medgan.data.dicom.tolerance import tolerant

LIMIT_S = 20
pytestmark = [pytest.mark.unit, pytest.mark.timeout(60)]


def modes():
    return settings.reading_validation_mode, settings.writing_validation_mode


def test_tolerant_restores_settings_after_last_of_overlapping_readers():
    before, filters = modes(), list(warnings.filters)
    first_left, second_entered = threading.Event(), threading.Event()
    seen = []

    def second():
        with tolerant():
            second_entered.set()
            assert first_left.wait(LIMIT_S)
            seen.append(modes())

    thread = threading.Thread(target=second)
    with tolerant():
        thread.start()
        assert second_entered.wait(LIMIT_S)
    first_left.set()
    thread.join(LIMIT_S)
    assert seen == [(IGNORE, IGNORE)]
    assert modes() == before and warnings.filters == filters


def test_tolerant_restores_settings_after_error():
    before = modes()
    with pytest.raises(KeyError), tolerant(), tolerant():
        raise KeyError
    assert modes() == before
