"""Champion and previous move correctly on a real MLflow store, also with a crash before each write."""

import pytest
from mlflow import MlflowClient
from refusal import refusal

from medgan.errors import InputError, JobError
from medgan.registry.aliases import AliasDisagreement, disagreement, mend, roll_back, take_over
from medgan.registry.versions import holder, point

WRITES = ("set_registered_model_tag", "set_registered_model_alias", "delete_registered_model_alias")


class Crash(Exception):
    """Stands for the death of the process."""


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aliases")
    return f"sqlite:///{folder / 'mlflow.db'}", folder


@pytest.fixture
def model(registry, request):
    """Returns (name, uri) of a model of this test with versions 1, 2 and 3; version 1 is champion."""
    uri, folder = registry
    client, name = MlflowClient(tracking_uri=uri), f"model-{abs(hash(request.node.name))}"
    client.create_registered_model(name)
    for _ in range(3):
        client.create_model_version(name, source=str(folder))
    point(name, "champion", "1", uri=uri)
    return name, uri


def champion(model):
    return holder(model[0], "champion", uri=model[1])


def previous(model):
    return holder(model[0], "previous", uri=model[1])


@pytest.fixture
def crash_before(monkeypatch):
    """Returns a function of n: the n-th write to the store after its call fails."""

    def arm(number):
        left = [number]

        def guarded(real):
            def call(*arguments, **named):
                left[0] -= 1
                if left[0] == 0:
                    raise Crash
                return real(*arguments, **named)

            return call

        for write in WRITES:
            monkeypatch.setattr(MlflowClient, write, guarded(getattr(MlflowClient, write)))

    yield arm
    monkeypatch.undo()


def test_take_over_makes_champion_and_points_previous_to_old_champion(model):
    name, uri = model
    take_over(name, "2", judged_against="1", uri=uri)
    take_over(name, "3", judged_against="2", uri=uri)
    assert (champion(model), previous(model)) == ("3", "2")
    assert disagreement(name, uri=uri) is None


def test_roll_back_goes_back_one_champion_each_time(model):
    name, uri = model
    take_over(name, "2", judged_against="1", uri=uri)
    take_over(name, "3", judged_against="2", uri=uri)
    assert roll_back(name, uri=uri) == ("3", "2")
    assert (champion(model), previous(model)) == ("2", "1")
    assert roll_back(name, uri=uri) == ("2", "1")
    assert (champion(model), previous(model)) == ("1", None)
    with pytest.raises(InputError, check=refusal("E-ALIAS-04", champion="1")):
        roll_back(name, uri=uri)


def test_take_over_promotes_rolled_back_version_again(model):
    name, uri = model
    take_over(name, "2", judged_against="1", uri=uri)
    roll_back(name, uri=uri)
    take_over(name, "2", judged_against="1", uri=uri)
    assert (champion(model), previous(model)) == ("2", "1")


@pytest.mark.parametrize("write", [1, 2, 3])
def test_crash_in_take_over_leaves_champion_and_repeat_finishes(model, crash_before, write):
    name, uri = model
    take_over(name, "2", judged_against="1", uri=uri)
    crash_before(write)
    with pytest.raises(Crash):
        take_over(name, "3", judged_against="2", uri=uri)
    assert champion(model) == "2"
    mend(name, uri=uri)
    assert (champion(model), previous(model)) == ("2", "1")
    take_over(name, "3", judged_against="2", uri=uri)
    assert (champion(model), previous(model)) == ("3", "2")


@pytest.mark.parametrize("write", [1, 2, 3])
def test_crash_in_roll_back_leaves_champion_and_mend_finishes(model, crash_before, write):
    name, uri = model
    take_over(name, "2", judged_against="1", uri=uri)
    take_over(name, "3", judged_against="2", uri=uri)
    crash_before(write)
    with pytest.raises(Crash):
        roll_back(name, uri=uri)
    assert champion(model) == ("3" if write == 1 else "2")
    mend(name, uri=uri)
    assert previous(model) == ("2" if write == 1 else "1")
    assert disagreement(name, uri=uri) is None


def test_roll_back_after_interrupted_one_does_not_go_two_steps(model, crash_before):
    name, uri = model
    take_over(name, "2", judged_against="1", uri=uri)
    take_over(name, "3", judged_against="2", uri=uri)
    crash_before(2)
    with pytest.raises(Crash):
        roll_back(name, uri=uri)
    with pytest.raises(InputError, check=refusal("E-ALIAS-03", champion="2")):
        roll_back(name, uri=uri)
    assert (champion(model), previous(model)) == ("2", "1")


def test_take_over_refuses_when_champion_changed_since_comparison(model):
    name, uri = model
    with pytest.raises(JobError, check=refusal("E-ALIAS-01", number="2", judged_against="3", champion="1")):
        take_over(name, "2", judged_against="3", uri=uri)
    assert (champion(model), previous(model)) == ("1", None)


def test_first_champion_has_no_previous(registry):
    uri, folder = registry
    client = MlflowClient(tracking_uri=uri)
    client.create_registered_model("first")
    client.create_model_version("first", source=str(folder))
    with pytest.raises(InputError, check=refusal("E-ALIAS-02", name="first", uri=uri)):
        roll_back("first", uri=uri)
    take_over("first", "1", judged_against=None, uri=uri)
    assert holder("first", "champion", uri=uri) == "1"
    assert holder("first", "previous", uri=uri) is None


def test_roll_back_skips_deleted_version(model):
    name, uri = model
    take_over(name, "2", judged_against="1", uri=uri)
    take_over(name, "3", judged_against="2", uri=uri)
    MlflowClient(tracking_uri=uri).delete_model_version(name, "2")
    assert disagreement(name, uri=uri) == AliasDisagreement(None, "1"), "MLflow took the alias with the version"
    mend(name, uri=uri)
    assert roll_back(name, uri=uri) == ("3", "1")


def test_roll_back_of_repeated_champion_goes_step_by_step(model):
    name, uri = model
    for number, before in (("2", "1"), ("3", "2"), ("2", "3")):
        take_over(name, number, judged_against=before, uri=uri)
    assert previous(model) == "3"
    assert [roll_back(name, uri=uri)[1] for _ in range(3)] == ["3", "2", "1"]
    with pytest.raises(InputError, check=refusal("E-ALIAS-04", champion="1")):
        roll_back(name, uri=uri)


def test_mend_adds_champion_that_was_set_by_hand(model):
    name, uri = model
    take_over(name, "2", judged_against="1", uri=uri)
    point(name, "champion", "3", uri=uri)
    assert disagreement(name, uri=uri) == AliasDisagreement("1", "2")
    mend(name, uri=uri)
    assert roll_back(name, uri=uri) == ("3", "2")


def test_roll_back_finds_model_among_many(registry):
    uri, folder = registry
    client = MlflowClient(tracking_uri=uri)
    for number in range(101):
        client.create_registered_model(f"a-{number}")
    client.create_registered_model("z")
    client.create_model_version("z", source=str(folder))
    with pytest.raises(InputError, check=refusal("E-ALIAS-02", name="z")):
        roll_back("z", uri=uri)


def test_aliases_refuse_missing_model_or_store_and_make_none(registry, tmp_path):
    with pytest.raises(InputError, check=refusal("E-ALIAS-06", name="absent", uri=registry[0])):
        roll_back("absent", uri=registry[0])
    missing = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with pytest.raises(InputError, check=refusal("E-ALIAS-05", name="absent", uri=missing)):
        disagreement("absent", uri=missing)
    assert not list(tmp_path.iterdir())
