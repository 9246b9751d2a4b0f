"""The record of what made a result (machine, packages, code), and the comparison of two records."""

import json
import os
import stat
import subprocess
import sys
from importlib.metadata import version

import pytest

from medgan.provenance import (
    LIBRARIES,
    attach,
    code_version,
    differences,
    hardware,
    job_facts,
    library_versions,
    package_digest,
    run_facts,
    tags_from,
)

pytestmark = pytest.mark.unit

SMI_TABLE = "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4     |"
SMI_ROWS = "NVIDIA H100 80GB HBM3, 550.54.15\nNVIDIA A100-SXM4-40GB, 550.54.15"


@pytest.fixture
def facts():
    return run_facts(
        job_facts(data_digest="d" * 64, split_digest="5" * 64),
        workers=2,
        threads=1,
        device="cpu",
        seed=7,
        features={"network": "vgg19", "factors": ["100.1", "134.3"]},
    )


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """A machine whose driver answers as NVIDIA's does."""
    command = tmp_path / "nvidia-smi"
    command.write_text(f'#!/bin/sh\n[ $# -gt 0 ] && echo "{SMI_ROWS}" || echo "{SMI_TABLE}"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_library_versions_are_those_installed():
    versions = library_versions()
    assert versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {name: versions[name] for name in LIBRARIES} == {name: version(name) for name in LIBRARIES}


def test_library_version_of_missing_library_is_none(monkeypatch):
    monkeypatch.setattr("medgan.provenance.LIBRARIES", ("nosuchlibrary",))
    assert library_versions()["nosuchlibrary"] == "none"


def test_job_facts_import_no_library():
    text = (
        "import sys; from medgan.provenance import job_facts; "
        "job_facts(data_digest='a', split_digest='b'); "
        f"print(sorted(set(sys.modules) & set({LIBRARIES!r})))"
    )
    assert subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_hardware_describes_this_machine():
    found = hardware()
    assert found["cores"] == len(os.sched_getaffinity(0))
    assert found["cpu"]
    assert found["memory_gib"] >= 1


def test_hardware_without_nvidia_driver_has_no_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = hardware()
    assert (found["gpus"], found["gpu_driver"], found["cuda"]) == ([], "none", "none")


def test_hardware_names_gpus_driver_and_cuda(two_gpus):
    found = hardware()
    assert found["gpus"] == ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB"]
    assert (found["gpu_driver"], found["cuda"]) == ("550.54.15", "12.4")


def test_hardware_with_failing_driver_has_no_gpus(tmp_path, monkeypatch):
    command = tmp_path / "nvidia-smi"
    command.write_text("#!/bin/sh\necho 'couldn, not communicate'\nexit 9\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert hardware()["gpus"] == []


def test_code_version_uses_variable_without_repository(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    monkeypatch.setenv("MEDGAN_COMMIT", "abc")
    assert code_version() == {"commit": "abc", "commit_source": "MEDGAN_COMMIT"}


def test_code_version_without_commit_is_package_digest(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("MEDGAN_COMMIT", raising=False)
    assert code_version() == {"commit": package_digest(), "commit_source": "package digest"}


def test_tags_from_facts_are_few_and_filterable(facts):
    assert tags_from(facts) == {
        "medgan.data_digest": "d" * 64,
        "medgan.split_digest": "5" * 64,
        "medgan.commit": code_version()["commit"],
        "medgan.device": "cpu",
        "medgan.workers": 2,
    }


def test_attach_writes_configuration_and_facts_as_exact_json(facts):
    taken, config = {}, {"optim": {"generator_lr": 0.1 + 0.2}, "loss": {"style_blocks": [1, 5]}}
    attach(lambda path: taken.update({path.name: json.loads(path.read_text())}), config, facts)
    assert taken == {"config.json": config, "provenance.json": facts}


def test_differences_of_equal_facts_are_empty(facts):
    assert differences(json.loads(json.dumps(facts)), facts) == []


def test_differences_name_fact_then_and_now(facts):
    then = json.loads(json.dumps(facts))
    then["versions"]["torch"], then["hardware"]["gpus"], then["run"]["workers"] = "1.0", ["Tesla", "Tesla"], 1
    del then["code"]["package"]
    gpus = ", ".join(facts["hardware"]["gpus"]) or "none"
    assert differences(then, facts) == [
        f"versions.torch: 1.0 then, {version('torch')} now",
        f"hardware.gpus: Tesla, Tesla then, {gpus} now",
        "run.workers: 1 then, 2 now",
        f"code.package: not recorded then, {package_digest()} now",
    ]


def test_differences_ignore_facts_of_trial(facts):
    assert differences({**facts, "trial": {"number": 3, "root": 1}}, facts) == []
