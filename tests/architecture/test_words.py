"""Functions are small, docstrings are sentences, messages carry values, and only the command line prints."""

import ast
import re
import string
from collections import defaultdict
from pathlib import Path

from source import FILES, TREES, branches_of, functions, unit_of

from medgan.errors import InputError, messages

CODE = re.compile(r"E-[A-Z]+-\d\d")
NOUNS = {"Its", "This", "Patients", "Trials", "Rows", "Lines", "Settings", "Seconds", "Metrics", "Slices", "Values"}
"""Words that end like a verb in the third person, and are none."""


COMMANDS = [file for file in FILES if file.startswith("cli/") and file.endswith(("commands.py", "main.py"))]
"""The docstring of a command is what --help says."""


def uses_of_codes():
    """Code -> calls that make an error of it."""
    found = defaultdict(list)
    for file in FILES:
        for node in ast.walk(TREES[file]):
            first = node.args[0] if isinstance(node, ast.Call) and node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and CODE.fullmatch(first.value):
                found[first.value].append(node)
    return found


def test_functions_have_at_most_ten_branches():
    assert [place for place, function in functions() if branches_of(function) > 10] == []


def test_branches_of_counts_every_decision():
    source = "def f(a):\n    if a and a:\n        return [b for b in a if b]\n    return 1 if a else 2\n"
    assert branches_of(ast.parse(source).body[0]) == 5


def test_every_module_has_a_docstring():
    assert [file for file, tree in TREES.items() if tree.body and not ast.get_docstring(tree)] == []


def test_docstrings_of_functions_begin_with_a_verb():
    fragments = []
    for place, function in functions():
        text = ast.get_docstring(function)
        if text is None or (place.split(":")[0] in COMMANDS and not function.name.startswith("_")):
            continue
        word = text.split()[0].strip("`,.:")
        if not re.fullmatch(r"[A-Z][a-z-]*s", word) or word in NOUNS:
            fragments.append(f"{place}: {text.splitlines()[0]}")
    assert fragments == []


def test_docstrings_are_sentences_that_end():
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [(file, node) for file in FILES for node in ast.walk(TREES[file]) if isinstance(node, kinds)]
    texts = [(file, ast.get_docstring(node)) for file, node in nodes]
    summaries = [(file, text.split("\n\n")[0]) for file, text in texts if text]
    assert [one for one in summaries if not one[1].endswith((".", ":", "?", "```"))] == []
    assert [one for one in summaries if not re.match(r"[A-Z`\"'(\d]", one[1])] == []


MAY_PRINT = ("cli", "processes")
"""The command line prints; a child process drops what decoders print."""


def test_only_the_command_line_prints():
    prints = [
        f"{file}:{node.lineno}"
        for file in FILES
        for node in ast.walk(TREES[file])
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "os.dup2")
        and unit_of(file) not in MAY_PRINT
    ]
    assert prints == []


def test_codes_of_errors_are_those_with_a_message():
    assert {*uses_of_codes()} == {*messages()}


def test_codes_that_were_given_once_are_never_removed():
    frozen = Path(__file__).with_name("error_codes.txt").read_text().split()
    assert len(frozen) > 300 and {*frozen} <= {*messages()}


def test_errors_give_every_value_that_their_message_names():
    missing = []
    for code, calls in uses_of_codes().items():
        wanted = {name for _, name, _, _ in string.Formatter().parse(messages()[code]) if name}
        for call in calls:
            given = {keyword.arg for keyword in call.keywords}
            if isinstance(call.func, ast.Attribute):  # error.within(code): the reason is the error's own text
                given.add("reason")
            missing += [f"{code}: {name}" for name in wanted - given]
    assert missing == []


def test_errors_are_made_with_a_code():
    kinds = {"InputError", "JobError", "Diverged", "TrialFailed", "GroupLost", "Refusal", "ValueError", "RuntimeError"}
    bare = []
    for file in FILES:
        for node in ast.walk(TREES[file]):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in kinds:
                first = node.exc.args[0] if node.exc.args else None
                if not (isinstance(first, ast.Constant) and CODE.fullmatch(str(first.value))):
                    bare.append(f"{file}:{node.lineno}")
    assert bare == []


def test_messages_carry_the_offending_value():
    with_value = [code for code, text in messages().items() if "{" in text]
    assert len(with_value) / len(messages()) >= 0.97


def test_error_survives_a_process_boundary_with_code_and_fields():
    import pickle

    error = pickle.loads(pickle.dumps(InputError("E-CONFIG-20", option="--workers", value=0)))
    assert (error.code, error.fields) == ("E-CONFIG-20", {"option": "--workers", "value": 0})
    assert "--workers" in str(error) and type(error) is InputError


def test_error_within_another_keeps_its_code():
    inner = InputError("E-CONFIG-20", option="--workers", value=0)
    outer = inner.within("E-CONFIG-21")
    assert outer.code == "E-CONFIG-20" and str(inner) in str(outer) and outer.fields["value"] == 0


def test_error_with_bare_text_is_that_text():
    error = InputError("as {older} registered models raise it")
    assert (str(error), error.code) == ("as {older} registered models raise it", "")
