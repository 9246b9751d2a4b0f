"""Defines the commands that use a registered model: translate, serve."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from medgan.cli.options import Model, Output, TrackingUri, stoppable

app = typer.Typer()


@app.command()
def translate(
    source: Annotated[Path, typer.Argument(metavar="IN", help="folder with the source series, DICOM or NIfTI")],
    out: Annotated[Path, typer.Argument(help="folder to write: new, empty, or of the same command before")],
    model: Model,
    frames: Annotated[
        Literal["same", "any"], typer.Option(help="any: translate a source without a frame of reference too")
    ] = "same",
    output: Output = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Translate every fitting series below IN with a registered model; the result says it is synthetic.

    The same command again goes on where it stopped: series that the same version has written are left as they are.
    """
    from medgan.cli.terminal import Terminal
    from medgan.paths import find_place
    from medgan.workflows.translate_folder import translate_with

    with stoppable(), Terminal() as terminal:
        uri = find_place(output, tracking_uri).tracking_uri
        translate_with(model, source, out, uri=uri, frames=frames, notify=terminal)
        terminal.say("Synthetic images, for research only; not for diagnosis.")


@app.command()
def serve(
    model: Model,
    host: Annotated[
        str, typer.Option(help="address to listen at; beyond loopback, behind a proxy with TLS")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="there", min=1, max=65535)] = 8000,
    token_file: Annotated[
        Path | None, typer.Option(help="holds the bearer token, mode 600 (default: serve.token in --output, made)")
    ] = None,
    max_body_mib: Annotated[int, typer.Option(help="largest body of a request, MiB", min=1)] = 1024,
    max_unpacked_mib: Annotated[int, typer.Option(help="largest series unpacked and decoded, MiB", min=1)] = 4096,
    max_files: Annotated[int, typer.Option(help="most files of a request", min=1)] = 5000,
    max_seconds: Annotated[float, typer.Option(help="longest request until its answer, s", min=1)] = 600.0,
    max_requests: Annotated[int, typer.Option(help="worked on or waiting at once", min=1)] = 16,
    output: Output = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Serve a registered model over HTTP until Ctrl-C: a DICOM series in, the derived series out; follows the alias.

    POST /translate takes the files of one series (multipart/form-data) or a zip file of them (application/zip) and
    gives a zip file. GET /model says what is served, GET /health whether it is what it should be.
    """
    from medgan.cli.terminal import Terminal
    from medgan.paths import find_place
    from medgan.server.upload import Limits
    from medgan.workflows.serve import serve as serve_model

    limits = Limits(
        body_bytes=max_body_mib << 20,
        files=max_files,
        inflated_bytes=max_unpacked_mib << 20,
        request_s=max_seconds,
        requests=max_requests,
    )
    place, file = find_place(output, tracking_uri), token_file.expanduser().absolute() if token_file else None
    with Terminal() as terminal:
        serve_model(model, place, host=host, port=port, token_file=file, limits=limits, notify=terminal)
