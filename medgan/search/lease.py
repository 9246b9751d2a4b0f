"""Keeps the lease on a study in its database: one driver at a time, on any host; a dead driver loses its lease."""

import _thread
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Column, Connection, Engine, Float, Integer, MetaData, Row, String, Table, create_engine
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from medgan.errors import InputError, JobError
from medgan.locks import opening
from medgan.logs import LOG
from medgan.search.study import database_errors

BEAT_S = 5.0
LIFE_S = 30.0
"""The lease of a driver on another host expires after this time without renewal; clocks agree to a few seconds."""
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
    """Holds the lease of a study until the block ends, with or without an error.

    Yields:
        A function that returns whether the lease was lost. Once it is, another driver owns the study: do not write.

    Raises:
        InputError: a living driver holds the lease (the message says which), or the database does not exist.
        JobError: another driver took the lease over, since this one did not renew it in time (the machine slept).
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
    """Returns the living driver of a study, such as "process 12 on host, for 40 s"; "" if there is none."""
    with closing(_opened(uri)) as store:
        return store.holder(study)


def is_expired(uri: str, study: str) -> bool:
    """Returns whether a dead driver left its lease behind."""
    with closing(_opened(uri)) as store:
        return store.has(study) and not store.holder(study)


def _opened(uri: str) -> "_Store":
    with database_errors(uri), opening(uri):
        return _Store(uri)


class _Store:
    """Reads and writes the table of leases of one database."""

    def __init__(self, uri: str) -> None:
        timeout = {"timeout": 30} if uri.startswith("sqlite") else {}
        self.engine: Engine = create_engine(uri, poolclass=NullPool, connect_args=timeout)
        try:
            LEASES.create(self.engine, checkfirst=True)
        except SQLAlchemyError:  # another driver created it meanwhile
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
                existing = _row(connection, study)
                if existing is None:
                    connection.execute(LEASES.insert().values(study=study, **mine))
                    return
                if _is_alive(existing):
                    raise InputError("E-LEASE-02", study=study, described=_described(existing))
                same = LEASES.update().where(LEASES.c.study == study, LEASES.c.token == existing.token)
                if connection.execute(same.values(**mine)).rowcount == 1:
                    return
        except (IntegrityError, OperationalError):
            LOG.exception("study %s: taking its lease failed", study)
        raise InputError("E-LEASE-03", study=study)

    def renew(self, study: str, token: str) -> bool:
        """Returns whether the lease was renewed; another driver holds it otherwise."""
        statement = LEASES.update().where(LEASES.c.study == study, LEASES.c.token == token).values(beat=time.time())
        with self.engine.begin() as connection:
            return connection.execute(statement).rowcount == 1

    def release(self, study: str, token: str) -> None:
        try:
            with self.engine.begin() as connection:
                connection.execute(LEASES.delete().where(LEASES.c.study == study, LEASES.c.token == token))
        except SQLAlchemyError:  # the lease expires by itself
            LOG.exception("study %s: releasing its lease failed", study)

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
        except SQLAlchemyError:  # unavailable database: the code that needs it raises
            LOG.exception("study %s: renewing its lease failed", study)
            continue
        if not renewed and not ended.is_set():
            lost.set()
            _thread.interrupt_main()
            return


def _row(connection: Connection, study: str) -> Row | None:
    return connection.execute(LEASES.select().where(LEASES.c.study == study)).one_or_none()


def _is_alive(row: Row) -> bool:
    """Returns whether a driver lives: by its process on this machine, by its last renewal on another."""
    if (row.host, row.namespace) == (socket.gethostname(), _namespace()):
        return _started(row.process) == row.started
    return time.time() - row.beat < LIFE_S


def _described(row: Row) -> str:
    return f"process {row.process} on {row.host} (for {time.time() - row.since:.0f} s)"


def _namespace() -> str:
    """Identifies the machine and container that process ids belong to, independently of host names."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """Returns the start of a process in kernel ticks, which differs if its id is used again; "" if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
