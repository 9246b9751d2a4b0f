"""Stands in for MLflow in tests of what is sent, and in which order."""

from pathlib import Path


class Memory:
    """A tracker that keeps its calls in memory."""

    def __init__(self):
        self.calls = []
        self.files = {}

    def params(self, values, moved=None):
        self.calls.append(("params", dict(values), moved))

    def tags(self, values):
        self.calls.append(("tags", dict(values)))

    def metrics(self, values, step, heard_ms=None):
        own = {name: value for name, value in values.items() if not name.startswith("system/")}
        self.calls.append(("metrics", own, step))
        self.system = values.keys() - own.keys()

    def artifact(self, path, folder=""):
        self.files[Path(path).name] = Path(path).read_bytes()
        self.calls.append(("artifact", Path(path).name, folder))

    def finish(self, status, heard_ms=None):
        self.calls.append(("finish", status))

    def opened(self, first_attempt, tags, began_ms):
        self.tags(tags)
        return self
