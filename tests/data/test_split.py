import stat
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import refusal

from medgan.data.prepare.split import assign_roles, load_key, patient_hash
from medgan.errors import InputError

pytestmark = pytest.mark.unit

HASHES = [f"{number:012x}" for number in range(40)]


@pytest.mark.parametrize(
    ("num", "train", "validation", "test"), [(3, 1, 1, 1), (6, 3, 1, 2), (12, 6, 2, 4), (18, 9, 3, 6)]
)
def test_assign_roles_gives_third_to_test_and_sixth_to_validation(num, train, validation, test):
    assert Counter(assign_roles(HASHES[:num], {}).values()) == {"train": train, "validation": validation, "test": test}


@given(st.permutations(HASHES[:12]), st.integers(3, 12))
def test_assign_roles_keeps_known_roles_in_any_order(order, num):
    known = assign_roles(order[:num], {})
    assert known == assign_roles(sorted(order[:num]), {})
    later = assign_roles(order, known)
    assert all(later[patient] == role for patient, role in known.items())
    assert Counter(later.values()) == {"train": 6, "validation": 2, "test": 4}


@pytest.mark.parametrize("num", [1, 2])
def test_assign_roles_makes_one_or_two_patients_test_patients(num):
    assert set(assign_roles(HASHES[:num], {}).values()) == {"test"}


def test_assign_roles_follows_chosen_shares():
    roles = assign_roles(HASHES[:20], {}, validation_share=0.1, test_share=0.5)
    assert Counter(roles.values()) == {"train": 8, "validation": 2, "test": 10}


def test_assign_roles_refuses_known_roles_without_test_patient():
    with pytest.raises(InputError, check=refusal("E-SPLIT-02", empty="validation, test", num="3")):
        assign_roles(HASHES[:3], dict.fromkeys(HASHES[:3], "train"))


def test_patient_hash_is_twelve_hex_digits_and_depends_on_key():
    first, second = patient_hash("P1", b"a"), patient_hash("P1", b"b")
    assert first != second
    assert len(first) == 12
    int(first, 16)


def test_load_key_draws_private_key_once(tmp_path):
    key = load_key(tmp_path)
    assert load_key(tmp_path) == key
    assert len(key) == 32
    assert stat.S_IMODE((tmp_path / ".key").stat().st_mode) == 0o600
