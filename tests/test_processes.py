"""A call in a child process ends alone: by a crash, a limit, a kill or a caller who left; the next call is answered."""

import os
import signal
import sys
import threading
import time
import warnings

import pytest
from refusal import refusal

import medgan.errors
from medgan.errors import InputError, JobError
from medgan.processes.child import Child, Stopped
from medgan.processes.crew import HERE, Crew, Limit, limit_of, machine_bytes, most_children

pytestmark = pytest.mark.timeout(60)
OWN_FILE = medgan.errors.__file__
LIMIT = Limit(memory_bytes=256 << 20, seconds=30.0)


@pytest.fixture(scope="module")
def crew():
    with Crew(2, LIMIT) as started:
        yield started


def memory_of(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) << 10


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL])
def test_crash_is_an_error_of_one_call(crew, number):
    with pytest.raises(InputError, check=refusal("E-CHILD-01", signal=number.name)):
        crew.run(signal.raise_signal, number)
    assert crew.run(len, "abc") == 3


def test_memory_beyond_limit_is_an_error_of_one_call(crew):
    with pytest.raises(InputError, check=refusal("E-CHILD-02", limit=0.25)):
        crew.run(bytearray, 1 << 30)
    assert len(crew.run(bytearray, 1 << 20)) == 1 << 20


def test_call_that_takes_too_long_is_killed():
    with Crew(1, Limit(memory_bytes=0, seconds=0.5)) as crew:
        began = time.monotonic()
        with pytest.raises(InputError, check=refusal("E-CHILD-03", limit_s=0.5)):
            crew.run(time.sleep, 50)
        assert time.monotonic() - began < 5
        assert crew.run(abs, -1) == 1


def test_call_of_somebody_who_left_is_killed(crew):
    began, pid = time.monotonic(), crew.run(os.getpid)

    asked = []

    def gone():
        asked.append(1)
        if len(asked) > 1:
            raise Stopped

    with pytest.raises(Stopped):
        crew.run(time.sleep, 50, go_on=gone)
    assert time.monotonic() - began < 5
    assert not os.path.exists(f"/proc/{pid}")


def test_killed_child_is_no_fault_of_its_file(crew):
    with pytest.raises(JobError, check=refusal("E-CHILD-04", exit_code=-signal.SIGKILL)):
        crew.run(signal.raise_signal, signal.SIGKILL)
    assert crew.run(len, "ab") == 2


def test_errors_come_back_as_they_were_raised(crew):
    with pytest.raises(ZeroDivisionError):
        crew.run(divmod, 1, 0)
    with pytest.raises(InputError, check=refusal("E-CHILD-03", limit_s=2)):
        crew.run(_refuse, 2)


def _refuse(limit_s):
    raise InputError("E-CHILD-03", limit_s=limit_s)


@pytest.mark.parametrize("caller", ["here", "crew"])
def test_each_yields_result_or_error_of_every_item(caller, crew):
    found = dict((crew if caller == "crew" else HERE).each(_half, [1, 2, 3, 4]))
    assert (found[2], found[4]) == (1, 2)
    assert [found[odd].fields["limit_s"] for odd in (1, 3)] == [1, 3]


def _half(number):
    if number % 2:
        _refuse(number)
    return number // 2


def test_each_that_is_left_early_kills_its_calls():
    with Crew(2, LIMIT) as crew:
        pids = {crew.run(os.getpid)}
        began = time.monotonic()
        for _ in crew.each(time.sleep, [0.0, 40.0, 40.0, 40.0]):
            break
        assert time.monotonic() - began < 5
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_child_that_has_grown_is_replaced():
    with Crew(1, Limit(memory_bytes=1 << 30, seconds=30, kept_bytes=128 << 20)) as crew:
        pid = crew.run(os.getpid)
        assert crew.run(os.getpid) == pid
        crew.run(_remember, 300 << 20)
        assert crew.run(os.getpid) != pid
        assert memory_of(crew.run(os.getpid)) < 300 << 20


def test_child_without_limit_keeps_what_it_holds():
    child = Child()
    child.call(_remember, 300 << 20, limit_s=30)
    assert child.usable and memory_of(child.pid) > 300 << 20
    child.close()


def _remember(size):
    sys.remembered = os.urandom(1 << 20) * (size >> 20)


def test_child_prints_nothing_and_writes_no_core(crew, capfd):
    crew.run(print, "PATIENT^NAME")
    with pytest.raises(InputError):
        crew.run(signal.raise_signal, signal.SIGABRT)
    assert capfd.readouterr() == ("", "")
    child = Child()
    import resource

    assert child.call(resource.getrlimit, resource.RLIMIT_CORE, limit_s=9) == (1, 1)
    child.close()


def test_warnings_of_our_own_reach_the_caller(crew, tmp_path):
    with pytest.warns(UserWarning, match="is no valid UID and is referred to as it is"):
        crew.run(_warn)


def _warn():
    warnings.warn_explicit("SOPInstanceUID is no valid UID and is referred to as it is", UserWarning, OWN_FILE, 1)
    warnings.warn_explicit("PATIENT^NAME is no valid name", UserWarning, "pydicom/valuerep.py", 1)


def test_limit_gives_each_child_its_share():
    assert limit_of(1, 5.0) == Limit(int(0.8 * machine_bytes()), 5.0)
    assert limit_of(8, 5.0).memory_bytes == int(0.1 * machine_bytes())
    fitting = most_children(10_000)
    assert limit_of(fitting, 5.0).memory_bytes >= min(4 << 30, int(0.8 * machine_bytes())) and most_children(1) == 1


def test_call_is_repeated_where_an_earlier_one_broke_its_child():
    with Crew(1, LIMIT) as crew:
        crew.run(_crash_soon)
        pid = crew.run(os.getpid)
        crew.run(time.sleep, 1.0)
        assert crew.run(os.getpid) != pid


def _crash_soon():
    threading.Timer(0.3, signal.raise_signal, [signal.SIGSEGV]).start()


def test_answer_that_cannot_be_pickled_is_an_error_of_its_call(crew):
    with pytest.raises(RuntimeError, match="could not be pickled"):
        crew.run(threading.Lock)
    assert crew.run(abs, -2) == 2


def test_child_that_takes_nothing_is_killed_in_time():
    child = Child()
    os.kill(child.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(InputError, check=refusal("E-CHILD-03", limit_s=1)):
        child.call(len, bytes(50 << 20), limit_s=1)
    assert time.monotonic() - began < 5 and not child.usable


def test_child_killed_within_its_answer_is_lost():
    with Crew(1, LIMIT) as crew:
        pid = crew.run(os.getpid)
        threading.Timer(0.5, os.kill, [pid, signal.SIGKILL]).start()
        for _ in range(60):  # one of these answers is cut
            assert len(crew.run(bytes, 20 << 20)) == 20 << 20
        assert crew.run(os.getpid) != pid


def test_crashes_are_told_from_kills_by_many_threads():
    with Crew(4, LIMIT) as crew:
        found = [error for _, error in crew.each(signal.raise_signal, [signal.SIGSEGV] * 60)]
    assert {error.code for error in found} == {"E-CHILD-01"}


def test_closed_crew_calls_nothing():
    crew = Crew(2, LIMIT)
    assert crew.run(abs, -1) == 1
    crew.close()
    with pytest.raises(Stopped):
        crew.run(abs, -1)
