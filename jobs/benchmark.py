"""Measure what is fast, each figure as a ratio against a stated reference in the same run.

python jobs/benchmark.py --quick                        every part but memory and quality, at most three minutes
python jobs/benchmark.py --part quality --data FOLDER   does speed cost quality? on a prepared data set
python jobs/benchmark.py --part shares --data FOLDER     how strongly each loss term acts, with every extractor
python jobs/benchmark.py --part step --device cuda      one part; step and inference need torch, numpy, scikit-image
python jobs/benchmark.py --out FILE.json                in full, and written down
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any

from medgan.errors import InputError, JobError

QUICK = ("step", "inference", "data", "validation", "handover", "scaling")
PARTS = (*QUICK, "memory", "quality", "shares")
ON_DATA = ("quality", "shares")
ON_RAY = ("handover", "memory")
"""Parts whose engines print: into a log, as in a command."""


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read by torch: threads that spin disturb what is measured
    options = asked()
    import torch

    from medgan.benchmark.measurements import Measurement, table_text, write_json
    from medgan.provenance import code_version, hardware, library_versions

    device = torch.device(options.device)
    rows: list[Measurement] = []
    for part in options.part or (QUICK if options.quick else PARTS):
        given = {"data": options.data} if part in ON_DATA else {}
        given |= {"weights": options.weights} if part == "shares" else {}
        found = measured(part, quick=options.quick, device=device, **given)
        rows += found
        print(table_text(found), end="\n\n", flush=True)
    if options.out:
        versions = {**library_versions(), "cuda": torch.version.cuda}
        write_json(options.out, rows, {"code": code_version(), "versions": versions, "hardware": hardware()})


def measured(part: str, *, quick: bool, device: Any, **given: Any) -> list[Any]:
    """The rows of a part; one that says so where a library that it needs is not installed."""
    from medgan.benchmark.measurements import Measurement

    try:
        with ExitStack() as stack:
            if part in ON_RAY:
                from medgan.cli.terminal import quiet_engines

                scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="medgan-benchmark-"))
                stack.enter_context(quiet_engines(Path(scratch) / "log.txt"))
            return list(import_module(f"medgan.benchmark.bench_{part}").measure(quick=quick, device=device, **given))
    except ModuleNotFoundError as error:
        return [Measurement(part, part, "whole package needed", str(device), note=f"{error.name} is not installed")]


def asked() -> argparse.Namespace:
    """What the command line asks for; exit code 2 where it cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="repeat for several (default: all)")
    parser.add_argument("--quick", action="store_true", help="small settings, few rounds: at most 3 minutes on 2 cores")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="prepared; for quality, shares (default: phantoms)")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="of trained feature extractors, for shares")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where torch finds it")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write rows, versions and hardware there")
    options = parser.parse_args()
    if options.out and not options.out.absolute().parent.is_dir():
        parser.error(f"--out: expected a file in a folder that exists; there is no {options.out.absolute().parent}")
    if options.data and not set(ON_DATA) & {*(options.part or (() if options.quick else PARTS))}:
        parser.error("--data is for the parts quality and shares; add --part quality")
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here; leave --device out to measure on the CPU")
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return options


if __name__ == "__main__":
    try:
        main()
    except (InputError, JobError) as error:
        print(f"{error} [{error.code}]", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
