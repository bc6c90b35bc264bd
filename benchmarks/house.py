"""The house in numbers: how large the folders are, and whether the layout's rules hold.

    python benchmarks/house.py          (a second)

It reads the sources of the repository it stands in, without importing numpyvit, and prints

-   the files and lines of each folder;
-   the imports that point upwards in the order of layers (there must be none);
-   the import cycles among the modules (there must be none);
-   for each page in numpyvit/layers/, how many other pages its reader needs (at most 2);
-   the lines of more than 100 columns (there must be none).

The exit code is 1 if a rule is broken. tests/test_house.py asserts the same.

**The order of layers** is ORDER, from the top. A module may import from its own group and
from the groups below. Imports for type checkers only (`if TYPE_CHECKING:`) do not count.
Imports inside functions do, except within backend/, where ops.py finds a kernel on the first
call on purpose, so that CuPy is imported only by those who use a GPU. numpyvit/__init__.py,
which collects the public names, may import everything; no other module may import it.

**Page A needs page B** if A imports a function of B, which is a lower-case name: one must
know what the function computes to follow A's formulas. Importing a class (a capitalised name) is
using a layer by its documented forward and backward, and names that contain "_fast_" belong
to the appendix of fast twins. Both do not count.
"""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "numpyvit"
FOLDERS = (PACKAGE, "tests", "benchmarks", "examples")
ORDER = (
    ("cli", "__main__"),
    ("look", "gradcheck", "testing"),
    ("train",),
    ("classifier",),
    ("engine",),
    ("vit", "vit_checks", "presets"),
    ("layers", "optim", "data"),
    ("config", "params", "losses", "storage", "watch"),
    ("backend",),
    ("errors", "seeds", "version"),
)
COLUMNS = 100
PAGES_NEEDED = 2


@dataclass(frozen=True)
class Import:
    """One imported module, and the names taken from it (none for `import module`)."""

    importer: str
    imported: str
    names: tuple[str, ...]
    line: int
    lazy: bool  # inside a function

    def __str__(self) -> str:
        return f"{self.importer} (line {self.line}) imports {self.imported}"


def module_files(root: Path = ROOT) -> dict[str, Path]:
    """Return the file of each module of the package, by its dotted name."""
    files = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        files[".".join(parts)] = path
    return files


def package_imports(root: Path = ROOT) -> list[Import]:
    """Return all imports of the package's modules from one another."""
    files = module_files(root)
    found = []
    for module, path in files.items():
        is_package = path.name == "__init__.py"
        for node, lazy in import_nodes(ast.parse(path.read_text(encoding="utf-8"))):
            for imported, name in imported_names(node, module, is_package):
                if f"{imported}.{name}" in files:  # from package import module
                    found.append(Import(module, f"{imported}.{name}", (), node.lineno, lazy))
                elif imported in files:
                    names = (name,) if name else ()
                    found.append(Import(module, imported, names, node.lineno, lazy))
    return found


def import_nodes(
    tree: ast.AST, lazy: bool = False
) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Return the import statements below a node, each with whether it is in a function."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append((node, lazy))
        elif isinstance(node, ast.If) and is_type_checking(node.test):
            for other in node.orelse:
                found += import_nodes(ast.Module([other], []), lazy)
        else:
            in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            found += import_nodes(node, lazy or in_function)
    return found


def is_type_checking(test: ast.expr) -> bool:
    """Return whether this is the condition of an `if TYPE_CHECKING`."""
    return ast.unparse(test).split(".")[-1] == "TYPE_CHECKING"


def imported_names(
    node: ast.Import | ast.ImportFrom, module: str, is_package: bool
) -> list[tuple[str, str]]:
    """Return (absolute module, name) for each name of a statement; "" for `import module`."""
    if isinstance(node, ast.Import):
        return [(alias.name, "") for alias in node.names]
    base = node.module or ""
    if node.level:
        parents = module.split(".")
        up = node.level - 1 if is_package else node.level
        parents = parents[: len(parents) - up]
        base = ".".join([*parents, base] if base else parents)
    return [(base, alias.name) for alias in node.names]


def part_of(module: str) -> str:
    """Return the folder or file directly in the package that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def unknown_parts(root: Path = ROOT) -> list[str]:
    """Return the folders and files of the package that ORDER does not name."""
    known = {part for group in ORDER for part in group}
    parts = {part_of(module) for module in module_files(root)}
    return sorted(parts - known - {""})


def upward_imports(root: Path = ROOT) -> list[Import]:
    """Return the imports that point upwards in ORDER."""
    height = {part: -level for level, group in enumerate(ORDER) for part in group}
    found = []
    for link in counted_imports(root):
        lower = part_of(link.importer)
        upper = part_of(link.imported)
        if not lower or lower not in height:
            continue  # the package's __init__.py, or reported by unknown_parts
        if not upper or height.get(upper, 0) > height[lower]:
            found.append(link)
    return found


def counted_imports(root: Path = ROOT) -> list[Import]:
    """Return the imports that count: all except those inside functions within backend/."""
    return [
        link
        for link in package_imports(root)
        if not (link.lazy and part_of(link.importer) == part_of(link.imported) == "backend")
    ]


def import_cycles(root: Path = ROOT) -> list[list[str]]:
    """Return the groups of modules that import one another, directly or through others."""
    links: dict[str, set[str]] = {module: set() for module in module_files(root)}
    for link in counted_imports(root):
        links[link.importer].add(link.imported)
    reached = {module: reachable(links, module) for module in links}
    cycles = []
    seen: set[str] = set()
    for module in links:
        if module in reached[module] and module not in seen:
            cycle = {other for other in reached[module] if module in reached[other]}
            seen |= cycle
            cycles.append(sorted(cycle))
    return cycles


def reachable(links: dict[str, set[str]], start: str) -> set[str]:
    """Return all modules that `start` imports, directly or through others."""
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for module in links[waiting.pop()] - reached:
            reached.add(module)
            waiting.append(module)
    return reached


def needed_pages(root: Path = ROOT) -> dict[str, list[str]]:
    """Return for each page in layers/ the other pages that its reader needs."""
    folder = f"{PACKAGE}.layers."
    needs: dict[str, set[str]] = {
        module: set() for module in module_files(root) if module.startswith(folder)
    }
    for link in package_imports(root):
        if link.importer in needs and link.imported in needs:
            functions = [n for n in link.names if n.islower() and "_fast_" not in n]
            if functions or not link.names:  # `from . import page` may use all its functions
                needs[link.importer].add(link.imported)
    return {
        page.removeprefix(folder): sorted(other.removeprefix(folder) for other in others)
        for page, others in needs.items()
    }


def folder_sizes(root: Path = ROOT) -> dict[str, tuple[int, int]]:
    """Return (files, lines) of the Python sources of each folder.

    The package is listed by its folders; "numpyvit/*.py" are the files directly in it.
    """
    sizes: dict[str, tuple[int, int]] = {}
    for path in source_files(root):
        parts = path.relative_to(root).parts
        if parts[0] != PACKAGE:
            name = f"{parts[0]}/"
        elif len(parts) == 2:
            name = f"{PACKAGE}/*.py"
        else:
            name = f"{PACKAGE}/{parts[1]}/"
        files, lines = sizes.get(name, (0, 0))
        sizes[name] = files + 1, lines + len(path.read_text(encoding="utf-8").splitlines())
    return sizes


def long_lines(root: Path = ROOT) -> list[str]:
    """Return "file:line" of each line of more than COLUMNS columns in a Python source."""
    return [
        f"{path.relative_to(root)}:{number}"
        for path in source_files(root)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > COLUMNS
    ]


def source_files(root: Path) -> list[Path]:
    """Return the Python sources of the repository."""
    return [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]


def main() -> int:
    """Print the numbers, and return the exit code."""
    sizes = folder_sizes()
    for name, (files, lines) in sizes.items():
        print(f"{name:24}{files:5} files{lines:8,} lines")
    total_files = sum(files for files, _ in sizes.values())
    total_lines = sum(lines for _, lines in sizes.values())
    print(f"{'all':24}{total_files:5} files{total_lines:8,} lines")

    pages = needed_pages()
    print("\nother pages that a reader of a layer needs")
    for page, others in pages.items():
        print(f"{page:24}{len(others):5} {', '.join(others)}".rstrip())

    print()
    too_many = [page for page, others in pages.items() if len(others) > PAGES_NEEDED]
    rules: dict[str, list[str]] = {
        "folders and files that the order of layers does not name": unknown_parts(),
        "imports that point upwards": [str(link) for link in upward_imports()],
        "import cycles": [", ".join(cycle) for cycle in import_cycles()],
        f"layers whose reader needs more than {PAGES_NEEDED} other pages": too_many,
        f"lines of more than {COLUMNS} columns": long_lines(),
    }
    for rule, violations in rules.items():
        print(f"{rule}: {len(violations)}")
        for violation in violations:
            print(f"    {violation}")
    return int(any(rules.values()))


if __name__ == "__main__":
    sys.exit(main())
