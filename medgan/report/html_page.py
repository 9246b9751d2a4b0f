"""Makes the HTML of a report: the page, its tables and its pictures; callers escape cells and captions."""

import struct
from base64 import b64encode
from collections.abc import Iterable, Sequence

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #1b1f23; background: #fff; max-width: 1180px; margin: 2em auto;
  padding: 0 1em; }}
h1 {{ font-size: 1.5em; overflow-wrap: anywhere; }} h2 {{ font-size: 1.15em; margin: 2.2em 0 0.4em; }}
p {{ max-width: 56em; margin: 0.4em 0; }} a {{ color: #0a58a8; }}
.notice {{ background: #fff8e1; border-left: 4px solid #d9a406; padding: 0.6em 1em; max-width: none; }}
figure {{ margin: 0.6em 0; overflow-x: auto; }} figure img {{ display: block; max-width: 100%; height: auto; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: 0.3em 0.9em 0.3em 0; border-bottom: 1px solid #d8dee4; }}
th {{ font-weight: 600; }} thead th {{ color: #57606a; font-size: 0.87em; vertical-align: bottom; }}
td {{ font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }} td td {{ white-space: nowrap; }}
.trials td {{ font-size: 0.87em; white-space: nowrap; overflow-wrap: normal; }}
.trials td.text {{ white-space: normal; min-width: 13em; overflow-wrap: anywhere; }}
tr.best {{ background: #e8f3fb; }} tr:target {{ outline: 2px solid #0072b2; }}
.state {{ border-left: 0.5em solid #8a929a; padding-left: 0.45em; font-weight: 600; }}
.complete {{ border-color: #0072b2; }} .pruned {{ border-color: #b9c0c7; font-weight: normal; }}
.diverged {{ border-color: #d55e00; color: #9c4500; }} .out_of_memory {{ border-color: #cc79a7; color: #8f3a6b; }}
.infrastructure, .interrupted {{ border-color: #e69f00; color: #7a5400; }}
.budget {{ border-color: #009e73; color: #00664a; }} .input, .error, .restarts {{ border-color: #1b1f23; }}
.running, .waiting {{ border-color: #56b4e9; font-weight: normal; }}
@media (max-width: 700px) {{ figure img {{ max-width: none; width: 680px; }} body {{ margin: 1em auto; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="notice">For research only, not for diagnosis. Patients appear by keyed hash only; their pictures are
nevertheless health data.</p>
{body}
</body>
</html>
"""


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table that scrolls sideways if it is too wide; without names, a row's first cell is its heading."""
    lines = []
    for first, *others in rows:
        opening = f"<td>{first}</td>" if names else f'<th scope="row">{first}</th>'
        lines.append(f"<tr>{opening}{''.join(f'<td>{cell}</td>' for cell in others)}</tr>")
    return wide_table(names, lines)


def wide_table(names: Sequence[str], lines: Iterable[str], *, kind: str = "") -> str:
    """Returns a table like `table` from rows that are HTML already."""
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    body = "\n".join([f"<thead><tr>{head}</tr></thead>"] if names else []) + "\n".join(lines)
    return f'<div class="wide"><table class="{kind}">\n{body}\n</table></div>'


def section(heading: str, text: str, *content: str) -> str:
    """Returns a heading, an explaining text, and the content."""
    return "\n".join([f"<h2>{heading}</h2>", f"<p>{text}</p>", *content])


def embedded(picture: bytes, *, alternative: str) -> str:
    """Returns a PNG file as an image inside the page."""
    width, height = struct.unpack(">II", picture[16:24])
    source = f"data:image/png;base64,{b64encode(picture).decode()}"
    return f'<figure><img src="{source}" width="{width}" height="{height}" alt="{alternative}"></figure>'
