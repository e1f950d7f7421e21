"""The plan of the house, enforced: who may import whom, how large things may grow, what has its test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for package in ("app", "index") for path in (ROOT / package).rglob("*.py"))

# From the top down. A module imports from lower floors, and from its own package. The longest name counts.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("app.__main__",),
    ("app.server", "app.work", "app.reembed", "app.verify", "app.backup", "app.keys", "app.demo"),
    ("app.api", "app.worker", "app.supervisor", "app.show"),
    ("app.service", "app.importer", "app.ingest", "app.queries"),
    ("app.dropper", "app.sweeper"),
    ("app.bulks",),
    (
        "app.library",
        "app.repeats",
        "app.gathering",
        "app.search",
        "app.indexes",
        "app.access",
        "app.client",
        "app.options",
    ),
    ("app.opened", "app.parcels"),
    ("app.selection", "app.sampler", "app.agreement", "app.builder", "app.sources"),
    ("app.checks",),
    ("app.reports", "app.numbers"),
    ("app.build", "app.efforts"),
    ("app.encoder", "app.store", "app.media", "app.decode", "app.fetch", "app.owner", "app.description"),
    ("app.grammar",),
    ("app.filter",),
    ("app.settings", "app.process", "app.logs", "app.clock", "app.samples", "app.words", "app.wordset", "app.moment"),
    ("app.folders", "app.buckets", "app.meters", "app.tracing"),
    ("app.errors",),
    ("app.types",),
    ("app",),
    ("index",),
)
MAX_LINES, MAX_FUNCTION = 400, 50

# Modules without a mirrored test file, and where they are tested instead.
ELSEWHERE = {
    "app/__init__.py": "a version and the script's entry",
    "app/__main__.py": "tests/acceptance runs the command",
    "app/supervisor.py": "tests/acceptance kills workers and their server",
    "app/work.py": "tests/acceptance runs worker processes",
    "app/demo.py": "tests/acceptance runs the demo",
    "app/api/__init__.py": "create_app; every test of tests/app/api and tests/acceptance goes through it",
    "app/types.py": "frozen data; every test uses it",
    "app/sources/kind.py": "frozen data and what kinds have in common; the tests of each kind hold it to that",
    "app/filter.py": "frozen data; tests/app/test_grammar.py reads it, tests/app/store/test_filters.py asks it",
    "index/__init__.py": "docstring alone",
    "index/errors.py": "class names alone",
    "index/protocol.py": "tests/index/test_contract.py holds every index to it",
    "app/decode/children.py": "tests/app/decode/test_pool.py: what a child does is seen from its pool",
    "app/encoder/cuda.py": "tests/app/encoder/test_open_clip.py, which loads torch already",
    "app/decode/warm.py": "imports alone; tests/app/decode/test_pool.py starts it",
    "app/api/sources.py": "tests/app/api/test_ingest.py, whose server allows sources",
    "app/decode/limits.py": "frozen data",
    "app/decode/faults.py": "tests/app/decode/test_picture.py",
}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def floor(module: str) -> int:
    named = [(len(name), n) for n, names in enumerate(FLOORS) for name in names if within(module, name)]
    length, n = max(named)
    assert length > 3 or module == "app", f"{module} is on no floor: give it one in FLOORS"
    return n


def room(module: str) -> str:
    """The package or module on the second level: what belongs together."""
    return ".".join(module.split(".")[:2]) if within(module, "app") else "index"


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of ours, those inside functions too."""
    modules = {module_of(file) for file in FILES}
    if module_of(path) == "app":
        return  # the script's entry, which imports `app.__main__` when it is called
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else str(node.module) for name in whole]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in ("app", "index"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_imports_go_downward_only() -> None:
    wrong = [
        f"{where(path, line)} imports {target}"
        for path in FILES
        for line, target in imported(path)
        if room(target) != room(module := module_of(path)) and floor(target) <= floor(module)
    ]
    assert wrong == []


def test_there_is_no_circle_of_imports() -> None:
    graph = {module_of(path): {target for _, target in imported(path)} for path in FILES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"a circle: {' -> '.join([*trail, module])}"
        if module not in done:
            for target in sorted(graph[module] - {module}):
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("index", ("app",)),
        ("app.api", ("app.store", "app.media", "index")),
        ("app.worker", ("app.api", "index", "app.service")),
        ("app.types", ("app", "index")),
        ("app.client", ("app.service", "app.library", "app.store", "app.encoder", "app.api")),
    ],
)
def test_what_must_never_meet_does_not(package: str, never: tuple[str, ...]) -> None:
    wrong = [
        f"{where(path, line)} imports {target}"
        for path in FILES
        if within(module_of(path), package)
        for line, target in imported(path)
        if any(within(target, name) for name in never) and not within(target, package)
    ]
    assert wrong == []


def test_only_who_opens_and_builds_indexes_names_their_implementations() -> None:
    seams = ("index.protocol", "index.types", "index.idset", "index.errors")
    users = {
        module_of(path)
        for path in FILES
        if within(module_of(path), "app")
        for _, target in imported(path)
        if within(target, "index") and target not in seams
    }
    assert users == {"app.indexes", "app.opened", "app.builder", "app.build"}


@pytest.mark.parametrize(
    ("package", "foreign"),
    [
        ("index", {"fastapi", "torch", "PIL", "apsw", "starlette", "open_clip"}),
        ("app.worker", {"fastapi", "starlette", "faiss", "torch", "PIL"}),
        ("app.store", {"fastapi", "starlette", "torch", "PIL", "numpy"}),
        ("app.client", {"torch", "open_clip", "apsw", "faiss"}),
    ],
)
def test_libraries_stay_in_their_rooms(package: str, foreign: set[str]) -> None:
    found = set()
    for path in FILES:
        if within(module_of(path), package):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.split(".")[0])
    assert found & foreign == set()


def test_only_settings_read_the_environment() -> None:
    users = {
        module_of(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        or (isinstance(node, ast.ImportFrom) and any(alias.name in ("environ", "getenv") for alias in node.names))
    }
    passed_on = {
        "app.supervisor",
        "app.builder",
        "app.demo",
        "app.encoder.conversion",
        "app.encoder.published",
    }  # to the processes that they start
    assert users - {"app.settings"} - passed_on == {"app.decode.warm"}  # which sets what numpy reads at its import


def test_no_process_is_started_by_running_python_in_a_fork_of_ours() -> None:
    # There the locks of other threads are held for ever: SQLite's, for one (see app/supervisor.py).
    for path in FILES:
        source = path.read_text("utf-8")
        for word in ("create_subprocess", "subprocess_exec", "preexec_fn", "os.fork(", '"fork"'):
            assert word not in source, f"{word} in {path}"


def test_no_statement_is_formatted() -> None:
    """Values go to SQLite as values. Statements are constants, or constants joined by +."""

    def constant(node: ast.expr) -> bool:
        if isinstance(node, ast.BinOp):
            return isinstance(node.op, ast.Add) and constant(node.left) and constant(node.right)
        return isinstance(node, ast.Name | ast.Constant)

    places = {"execute": 0, "executemany": 0, "fetch_all": 1, "fetch_one": 1, "fetch_number": 1}
    wrong = []
    seen = 0
    for path in FILES:
        for call in calls(path):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            place = places.get(name)
            if place is None or len(call.args) <= place or module_of(path) == "app.store.clause":
                continue
            seen += 1
            if not constant(call.args[place]):
                wrong.append(where(path, call.lineno))
    assert wrong == []
    assert seen > 30


def test_statements_put_together_are_made_of_constants() -> None:
    """A filter's statement is joined from Clauses: each is made from a constant, and only joined to others.

    `app.store.clause` is the one module that touches their SQL: it adds them up, and runs the sum.
    """

    def constant(node: ast.expr) -> bool:
        if isinstance(node, ast.IfExp):
            return constant(node.body) and constant(node.orelse)
        if isinstance(node, ast.Name):
            return node.id.isupper()
        return isinstance(node, ast.Constant) and isinstance(node.value, str)

    own = ROOT / "app" / "store" / "clause.py"
    made = [(path, call) for path in FILES for call in calls(path) if getattr(call.func, "id", "") == "Clause"]
    assert [where(path, call.lineno) for path, call in made if path != own and not constant(call.args[0])] == []
    assert len(made) > 30
    touched = [
        where(path, node.lineno)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "sql" and path != own
    ]
    assert touched == []
    tree = ast.parse(own.read_text("utf-8"))
    assert not any(isinstance(node, ast.JoinedStr | ast.Mod) for node in ast.walk(tree))
    assert {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    } == {
        "__setattr__",
        "execute",
    }


def test_sql_stays_in_the_store() -> None:
    """Outside of it only `verify` asks the database questions of its own."""
    wrong = {
        module_of(path)
        for path in FILES
        for call in calls(path)
        if (isinstance(call.func, ast.Attribute) and call.func.attr == "execute")
        or (isinstance(call.func, ast.Name) and call.func.id.startswith("fetch_"))
        if not within(module_of(path), "app.store")
    }
    assert wrong == {"app.verify"}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    long = [
        f"{function.name}: {size} lines"
        for function in functions(path)
        if (size := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION
    ]
    assert long == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path.relative_to(ROOT)) for path in FILES if path.read_text("utf-8").strip() and not docstring(path)]
    assert silent == []


def docstring(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text("utf-8")))


def test_there_is_at_least_as_much_test_as_code() -> None:
    code = sum(len(path.read_text("utf-8").splitlines()) for path in FILES)
    tests = sum(len(path.read_text("utf-8").splitlines()) for path in (ROOT / "tests").rglob("*.py"))
    assert tests >= code


def test_every_module_has_its_test_in_the_mirrored_place() -> None:
    missing = []
    for path in FILES:
        name = path.relative_to(ROOT)
        mirrored = ROOT / "tests" / name.parent / f"test_{name.name}"
        if str(name) not in ELSEWHERE and path.read_text("utf-8").strip() and not mirrored.is_file():
            if path.name == "__init__.py" and not list(functions(path)):
                continue
            missing.append(str(name))
    assert missing == []


def test_the_list_of_modules_tested_elsewhere_is_not_out_of_date() -> None:
    for name in ELSEWHERE:
        path = ROOT / name
        assert path.is_file(), name
        assert not (ROOT / "tests" / path.relative_to(ROOT).parent / f"test_{path.name}").is_file(), name


def test_the_product_knows_nothing_of_what_measures_and_tests_it() -> None:
    around = {"tests", "bench", "prove", "training"}
    wrong = [
        where(path, node.lineno)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in around)
        or (isinstance(node, ast.Import) and {alias.name.split(".")[0] for alias in node.names} & around)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", sorted((ROOT / "prove").rglob("*.py")), ids=lambda path: path.stem)
def test_proofs_stay_small(path: Path) -> None:
    test_modules_and_functions_stay_small(path)
    assert docstring(path)
