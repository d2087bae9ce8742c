"""The course as pages to read: labs with what their cells print, explorers that move, and the guides.

    labkit site --out site      site/index.html, from a folder or from any web server

Nothing is executed: outputs are those of the built notebooks, set below the cells of the student's edition,
so that no answer is there. Sphinx lays it out, by myst-nb and a book theme (the kit's extra `site`).
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from labkit.explore import page
from labkit.paths import checkout_root, data_dir
from labkit.release import editions

NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme")
GUIDES = ("results", "instructors", "grading", "research")  # of docs/
LOOK = """
code.literal span.pre { white-space: normal; overflow-wrap: anywhere; }
.math-block { overflow-x: auto; margin: 1em 0; }
.bd-content table { display: block; overflow-x: auto; }
iframe.explorer { width: 100%; height: 46rem; border: 1px solid var(--pst-color-border); border-radius: 4px; }
"""
SETTINGS = {
    "project": "labkit",
    "html_title": "labkit",
    "language": "en",
    "extensions": ["myst_nb", "labkit.classroom.mathml"],
    "nb_execution_mode": "off",
    "myst_enable_extensions": ["dollarmath", "amsmath"],
    "myst_heading_anchors": 3,
    "suppress_warnings": ["myst.header"],  # a lab may leave out a level of headings
    "html_math_renderer": "mathml",
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "use_download_button": False,
        "use_fullscreen_button": False,
        "home_page_in_toc": True,
        "navbar_persistent": [],  # else a second search field, above the one of the sidebar
        "show_navbar_depth": 1,
    },
    "html_static_path": ["look"],
    "html_css_files": ["labkit.css"],
    "html_extra_path": ["extra"],
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_show_sphinx": False,
}


def build(out: Path, explorers: Iterable[str] = tuple(page.EXPLORERS)) -> Path:
    """Write the site to a new folder `out` and return its first page.

    ValueError: the extra `site` is not installed, `out` holds something already, or a lab was not built from
    its present source. Then, as after a failure half-way, there is no `out`.
    """
    if missing := [name for name in NEEDED if not importlib.util.find_spec(name)]:
        raise ValueError(
            f"The site is made by {' and '.join(missing)}, which this Python does not have; install the "
            "kit's extra in the checkout: uv pip install -e '.[site]'"
        )
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; name a new folder, nothing is overwritten.")
    labs = {source.stem: reading_edition(source) for source in sources()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        text, pages = Path(temporary, "text"), Path(temporary, "pages")
        titles = _explorers(text / "extra" / "explorers", explorers)
        _write(text, labs, titles)
        _sphinx(text, pages)
        if out.exists():
            out.rmdir()  # os.replace takes an empty folder's place on Linux alone
        os.replace(pages, out)
    return out / "index.html"


def sources() -> list[Path]:
    """The sources of all labs, in order."""
    return sorted((checkout_root() / "notebooks").glob("*.py"))


def reading_edition(source: Path) -> NotebookNode:
    """The student's cells of a lab, each with what it printed when the lab was built.

    ValueError: the notebook beside the source is missing, or was built from other code.
    """
    path = source.with_suffix(".ipynb")
    number = source.stem.split("_")[0]
    if not path.is_file():
        raise ValueError(f"{path.name} is missing; make it with `labkit build {number}`.")
    built = nbformat.read(path, as_version=4)
    if _code(built) != _code(editions.instructor(source)):
        raise ValueError(
            f"{path.name} is older than {source.name}; make it anew with `labkit build {number}`."
        )
    printed = {cell.id: cell.outputs for cell in built.cells if cell.cell_type == "code"}
    notebook = editions.student(source)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = printed[cell.id]
    return notebook


def _code(notebook: NotebookNode) -> list[tuple[str, str]]:
    return [(cell.id, cell.source) for cell in notebook.cells if cell.cell_type == "code"]


def _explorers(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Write the explorers' pages; their titles by name."""
    folder.mkdir(parents=True)
    titles = {}
    for name in names:
        made = page.opened(name)
        titles[name] = made.title
        made.save(folder / f"{name}.html")
        made.let_go()
    return titles


def _write(text: Path, labs: Mapping[str, NotebookNode], titles: Mapping[str, str]) -> None:
    """What Sphinx reads: the README as the first page, labs, explorers and guides, with their pictures."""
    root = checkout_root()
    for name, notebook in labs.items():
        (text / "labs").mkdir(parents=True, exist_ok=True)
        nbformat.write(_with_explorers(notebook, titles), text / "labs" / f"{name}.ipynb")
    shutil.copytree(root / "docs", text / "docs")
    shutil.copytree(data_dir() / "pictures", text / "data" / "pictures")
    (text / "look").mkdir()
    (text / "look" / "labkit.css").write_text(LOOK, encoding="utf-8")
    chapters = {
        "Labs": [f"labs/{name}" for name in labs],
        "Explorers": ["explorers"] if titles else [],
        "Guides": [f"docs/{name}" for name in GUIDES],
    }
    trees = "".join(_toctree(name, pages) for name, pages in chapters.items() if pages)
    front = (root / "README.md").read_text(encoding="utf-8")
    (text / "index.md").write_text(f"{front}\n{trees}", encoding="utf-8")
    if titles:
        shown = "\n".join(f"## {title}\n\n{_frame(name, title, '')}\n" for name, title in titles.items())
        about = "Each moves without a kernel: pictures of one patient were made ahead.\n"
        (text / "explorers.md").write_text(f"# Explorers\n\n{about}\n{shown}", encoding="utf-8")


def _toctree(name: str, pages: Iterable[str]) -> str:
    lines = "\n".join(pages)
    return f"\n```{{toctree}}\n:hidden:\n:caption: {name}\n\n{lines}\n```\n"


def _with_explorers(notebook: NotebookNode, titles: Mapping[str, str]) -> NotebookNode:
    """The same notebook, with a page that moves below each explorer's still picture."""
    cells = [notebook.cells[0], nbformat.v4.new_markdown_cell(NOTE)]
    for cell in notebook.cells[1:]:
        cells.append(cell)
        for name, title in titles.items():
            if cell.cell_type == "code" and re.search(rf"\b{page.EXPLORERS[name]}\(", cell.source):
                cells.append(nbformat.v4.new_markdown_cell(_frame(name, title, "../")))
    notebook.cells = cells
    return notebook


NOTE = (
    "*This page is to be read: outputs were made ahead, and where an answer is asked for, it is yours to "
    "write in your workbook. What a cell prints below such a place is what a right answer gives.*"
)


def _frame(name: str, title: str, up: str) -> str:
    """HTML of an explorer inside a page, and a link to it alone."""
    address = f"{up}explorers/{name}.html"
    return (
        f'<iframe class="explorer" src="{address}" title="{title}" loading="lazy"></iframe>\n\n'
        f'<p><a href="{address}">{title}: the sliders alone</a></p>\n'
    )


def _sphinx(text: Path, pages: Path) -> None:
    """Lay the text out as HTML. ValueError: Sphinx found something wrong, such as a link to nothing."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace, patch_docutils

    said = io.StringIO()
    with patch_docutils(), docutils_namespace():
        Sphinx(
            srcdir=text,
            confdir=None,
            outdir=pages,
            doctreedir=text / "doctrees",
            buildername="html",
            confoverrides=SETTINGS,
            status=None,
            warning=said,
            parallel=os.cpu_count() or 1,
        ).build()
    if warnings := said.getvalue().strip():
        raise ValueError(f"The site has faults: {warnings}")
    (pages / ".buildinfo").unlink(missing_ok=True)
