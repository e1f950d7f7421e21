"""The plan of the house: ten packages and their order, and which libraries each may use."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for package in ("app", "index") for path in (ROOT / package).rglob("*.py"))

# From the top down. A package imports from lower lines alone; two on one line do not import each other.
PACKAGES = (
    ("cli",),
    ("api",),
    ("worker",),
    ("service",),
    ("search", "sources"),
    ("storage",),
    ("encoder", "decode"),
    ("core",),
)
LINE = {package: n for n, packages in enumerate(PACKAGES) for package in packages}
MAX_FUNCTION = 50  # lines: what fits on a screen


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text("utf-8"))))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file) for file in FILES}


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def package_of(module: str) -> str:
    """`storage` for `app.storage.tables.jobs`; `app` for what lies beside the packages; `index`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "app" and len(parts) > 1 else parts[0]


def iter_imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of ours, those inside functions too."""
    if module_of(path) == "app":
        return  # the script's entry, which imports `app.cli.main` when it is called
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in whole]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in ("app", "index"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(path: Path) -> Iterator[ast.Call]:
    for node in nodes(path):
        if isinstance(node, ast.Call):
            yield node


def format_location(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_app_holds_packages_and_nothing_else() -> None:
    beside = {path.name for path in (ROOT / "app").iterdir()} - set(LINE) - {"__pycache__"}
    assert beside == {"__init__.py", "__main__.py", "web"}


def test_imports_go_downward_only() -> None:
    wrong = [
        f"{format_location(path, line)} imports {target}"
        for path in FILES
        if (package := package_of(module_of(path))) in LINE
        for line, target in iter_imports(path)
        if (other := package_of(target)) in LINE and other != package and LINE[other] <= LINE[package]
    ]
    assert wrong == []


def test_there_is_no_circle_of_imports() -> None:
    graph = {module_of(path): {target for _, target in iter_imports(path)} for path in FILES}
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
        ("app.api", ("app.storage.database", "app.storage.sql", "app.storage.tables", "app.storage.blobs", "index")),
        ("app.worker", ("index",)),
        ("app.core", ("index",)),
        ("app.core.types", ("app", "index")),
        ("app.cli.client", ("app.service", "app.storage", "app.encoder", "app.api")),
    ],
)
def test_what_must_never_meet_does_not(package: str, never: tuple[str, ...]) -> None:
    wrong = [
        f"{format_location(path, line)} imports {target}"
        for path in FILES
        if is_within(module_of(path), package)
        for line, target in iter_imports(path)
        if any(is_within(target, name) for name in never) and not is_within(target, package)
    ]
    assert wrong == []


def test_only_who_opens_and_builds_indexes_names_their_implementations() -> None:
    seams = ("index.protocol", "index.types", "index.idset", "index.errors")
    users = {
        module_of(path)
        for path in FILES
        if is_within(module_of(path), "app")
        for _, target in iter_imports(path)
        if is_within(target, "index") and target not in seams
    }
    opening = {"app.search.index_manager", "app.search.index_handle"}
    assert users == opening | {"app.search.index_builder", "app.search.build_process"}


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("faiss", "index"),
        ("pymilvus", "index"),
        ("fastapi", "api"),
        ("starlette", "api"),
        ("uvicorn", "api"),
        ("torch", "encoder"),
        ("open_clip", "encoder"),
        ("openvino", "encoder"),
        ("rapidocr", "encoder"),
        ("cv2", "encoder"),
        ("PIL", "decode"),
        ("pyarrow", "decode"),
        ("obstore", "sources storage"),
        ("click", "cli"),
    ],
)
def test_libraries_stay_in_their_package(library: str, home: str) -> None:
    users = set()
    for path in FILES:
        for node in nodes(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            if library in {name.split(".")[0] for name in names}:
                users.add(package_of(module_of(path)))
    assert users == set(home.split())


def test_only_settings_read_the_environment() -> None:
    users = {
        module_of(path)
        for path in FILES
        for node in nodes(path)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        or (isinstance(node, ast.ImportFrom) and any(alias.name in ("environ", "getenv") for alias in node.names))
    }
    passed_on = {
        "app",  # which sets what numpy reads when it is imported
        "app.core.process",
        "app.decode.child_process",
        "app.search.index_builder",
        "app.search.build_process",  # from its parent
        "app.cli.demo",
        "app.encoder.conversion",
        "app.encoder.int8",  # to NNCF
        "app.encoder.pretrained",
    }  # to the processes that they start
    assert users <= passed_on | {"app.core.settings"}


def test_no_process_is_started_by_running_python_in_a_fork_of_ours() -> None:
    # There the locks of other threads are held for ever: SQLite's, for one (see app/worker/supervisor.py). The fork
    # server has no threads.
    for path in FILES:
        if path.name in ("fork_server.py", "syscall_filter.py"):  # which names the call to refuse it
            continue
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
            if place is None or len(call.args) <= place or module_of(path) == "app.storage.sql":
                continue
            seen += 1
            if not constant(call.args[place]):
                wrong.append(format_location(path, call.lineno))
    assert wrong == []
    assert seen > 30


def test_statements_put_together_are_made_of_constants() -> None:
    """A filter's statement is joined from Clauses: each is made from a constant, and only joined to others.

    `app.storage.sql` is the one module that touches their SQL: it adds them up, and runs the sum.
    """

    def constant(node: ast.expr) -> bool:
        if isinstance(node, ast.IfExp):
            return constant(node.body) and constant(node.orelse)
        if isinstance(node, ast.Name):
            return node.id.isupper()
        return isinstance(node, ast.Constant) and isinstance(node.value, str)

    own = ROOT / "app" / "storage" / "sql.py"
    made = [(path, call) for path in FILES for call in calls(path) if getattr(call.func, "id", "") == "Clause"]
    assert [
        format_location(path, call.lineno) for path, call in made if path != own and not constant(call.args[0])
    ] == []
    assert len(made) > 30
    touched = [
        format_location(path, node.lineno)
        for path in FILES
        for node in nodes(path)
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


def test_sql_stays_in_storage() -> None:
    wrong = {
        module_of(path)
        for path in FILES
        for call in calls(path)
        if (isinstance(call.func, ast.Attribute) and call.func.attr == "execute")
        or (isinstance(call.func, ast.Name) and call.func.id in ("fetch_all", "fetch_one", "fetch_number"))
        if not is_within(module_of(path), "app.storage")
    }
    assert wrong == set()


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_functions_fit_a_screen(path: Path) -> None:
    long = [
        f"{function.name}: {size} lines"
        for function in functions(path)
        if (size := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION
    ]
    assert long == []


def test_the_product_knows_nothing_of_what_measures_and_tests_it() -> None:
    around = {"tests", "bench", "training"}
    wrong = [
        format_location(path, node.lineno)
        for path in FILES
        for node in nodes(path)
        if (isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in around)
        or (isinstance(node, ast.Import) and {alias.name.split(".")[0] for alias in node.names} & around)
    ]
    assert wrong == []
