"""The lease on a study, in its database: one driver at a time, wherever it runs; a dead one's is taken over."""

from __future__ import annotations

import _thread
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    create_engine,
)
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from medgan.errors import InputError, JobError
from medgan.locks import opening
from medgan.logs import LOG
from medgan.search.study import told_for

BEAT_S = 5.0
LIFE_S = 30.0
"""A lease of another host that was not renewed for so long has expired; clocks agree to a few seconds."""
LEASES = Table(
    "medgan_leases",
    MetaData(),
    Column("study", String(256), primary_key=True),
    Column("token", String(32), nullable=False),
    Column("host", String(256), nullable=False),
    Column("namespace", String(128), nullable=False),
    Column("process", Integer, nullable=False),
    Column("started", String(32), nullable=False),
    Column("since", Float, nullable=False),
    Column("beat", Float, nullable=False),
)


@contextmanager
def leased(uri: str, study: str) -> Iterator[Callable[[], bool]]:
    """Holds the study against other drivers, until the block ends, however it ends.

    Args:
        uri: the study database.
        study: its name.

    Yields:
        Whether it was lost; the study is another driver's then, and must be left alone.

    Raises:
        InputError: a living driver holds it, whose host, process and age are named; or there is no such database.
        JobError: another driver took the lease over, since this one did not renew it in time (a machine asleep).
    """
    token = uuid.uuid4().hex
    with closing(_opened(uri)) as store:
        store.take(study, token)
        ended, lost = threading.Event(), threading.Event()
        beating = threading.Thread(target=_beat, args=(store, study, token, ended, lost), daemon=True)
        beating.start()
        try:
            yield lost.is_set
        except BaseException:
            if not lost.is_set():
                raise
        finally:
            ended.set()
            beating.join(BEAT_S)
            store.release(study, token)
        if lost.is_set():
            raise JobError("E-LEASE-01", study=study, holder=store.holder(study) or "nobody")


def holder(uri: str, study: str) -> str:
    """Who holds a study, such as "process 12 on host, for 40 s"; "" where nobody alive does."""
    with closing(_opened(uri)) as store:
        return store.holder(study)


def is_expired(uri: str, study: str) -> bool:
    """Whether a dead driver's lease is left."""
    with closing(_opened(uri)) as store:
        return store.has(study) and not store.holder(study)


def _opened(uri: str) -> _Store:
    with told_for(uri), opening(uri):
        return _Store(uri)


class _Store:
    """The table of leases of one database."""

    def __init__(self, uri: str) -> None:
        timeout = {"timeout": 30} if uri.startswith("sqlite") else {}
        self.engine: Engine = create_engine(uri, poolclass=NullPool, connect_args=timeout)
        try:
            LEASES.create(self.engine, checkfirst=True)
        except SQLAlchemyError:  # another driver made it a moment ago
            LEASES.create(self.engine, checkfirst=True)

    def close(self) -> None:
        self.engine.dispose()

    def take(self, study: str, token: str) -> None:
        mine = {
            "token": token, "host": socket.gethostname(), "namespace": _namespace(), "process": os.getpid(),
            "started": _started(os.getpid()), "since": time.time(), "beat": time.time(),
        }  # fmt: skip
        try:
            with self.engine.begin() as connection:
                there = _row(connection, study)
                if there is None:
                    connection.execute(LEASES.insert().values(study=study, **mine))
                    return
                if _is_alive(there):
                    raise InputError("E-LEASE-02", study=study, described=_described(there))
                same = LEASES.update().where(LEASES.c.study == study, LEASES.c.token == there.token)
                if connection.execute(same.values(**mine)).rowcount == 1:
                    return
        except (IntegrityError, OperationalError):
            LOG.exception("study %s: its lease was not taken", study)
        raise InputError("E-LEASE-03", study=study)

    def renew(self, study: str, token: str) -> bool:
        """False where the lease is another's now."""
        statement = LEASES.update().where(LEASES.c.study == study, LEASES.c.token == token).values(beat=time.time())
        with self.engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def release(self, study: str, token: str) -> None:
        try:
            with self.engine.begin() as connection:
                connection.execute(LEASES.delete().where(LEASES.c.study == study, LEASES.c.token == token))
        except SQLAlchemyError:  # it expires by itself
            LOG.exception("study %s: its lease was not given back", study)

    def holder(self, study: str) -> str:
        with self.engine.connect() as connection:
            row = _row(connection, study)
        return _described(row) if row is not None and _is_alive(row) else ""

    def has(self, study: str) -> bool:
        with self.engine.connect() as connection:
            return _row(connection, study) is not None


def _beat(store: _Store, study: str, token: str, ended: threading.Event, lost: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        try:
            renewed = store.renew(study, token)
        except SQLAlchemyError:  # a database that is away: whoever needs it says so
            LOG.exception("study %s: its lease was not renewed", study)
            continue
        if not renewed and not ended.is_set():
            lost.set()
            _thread.interrupt_main()
            return


def _row(connection: Connection, study: str) -> Row | None:
    return connection.execute(LEASES.select().where(LEASES.c.study == study)).one_or_none()


def _is_alive(row: Row) -> bool:
    """A process of this machine is asked for; of another, only its beat is known."""
    if (row.host, row.namespace) == (socket.gethostname(), _namespace()):
        return _started(row.process) == row.started
    return time.time() - row.beat < LIFE_S


def _described(row: Row) -> str:
    return f"process {row.process} on {row.host}, for {time.time() - row.since:.0f} s"


def _namespace() -> str:
    """Tells process ids of one machine and container from another's, whatever they are called."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """When a process began, in the kernel's ticks, so that a number used again is another process; "" if it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
