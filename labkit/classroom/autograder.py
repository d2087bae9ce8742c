"""Gradescope's autograder: a zip that sets itself up there, and then grades the one hand-in it is shown.

Places and formats as documented on gradescope-autograders.readthedocs.io, "Autograder specifications" and
"Submission metadata": the zip is unpacked to /autograder/source, setup.sh runs once as root, run_autograder
for every hand-in in /autograder/submission, and what it leaves in /autograder/results/results.json counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import files, paths

if TYPE_CHECKING:
    from labkit.classroom.archives import Entry

ROOT = Path("/autograder")
CHECKOUT = ("lab.py", "pyproject.toml", "requirements.lock", "README.md", "LICENSE", "labkit", "data")
STOPPED = "it ended before it had a result; its container may need more time or memory."
SETUP = """\
#!/usr/bin/env bash
# Gradescope runs this once, as root, when it builds the image. Packages come from the network, or from a
# folder `wheels` beside this file that `python3 lab.py --fill-wheels wheels` made on such a computer.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq -y --no-install-recommends bubblewrap python3-venv
cd /autograder/source/labkit
from=()
if [ -d ../wheels ]; then from=(--wheels ../wheels); fi
python3 lab.py "${from[@]}" doctor --sandbox || [ $? = 3 ]  # 3: no jail; run_autograder looks again
"""
RUN = """\
#!/usr/bin/env bash
# Gradescope runs this for every hand-in. A result that says "not graded" is there before anything can fail.
mkdir -p /autograder/results
cat > /autograder/results/results.json <<'END'
%(skeleton)s
END
cd /autograder/source/labkit
exec .venv/bin/python -m labkit.classroom.autograder %(lab)s
"""


def build(released: Path, target: Path, lab: str | None = None) -> Path:
    """Write the zip for one lab of a release; ValueError when `released` is no release of this labkit.

    It holds the hidden checks and the release's key, as `released/grading` does.
    """
    from labkit.grading.release import load

    root, released, target = paths.checkout_root(), Path(released), Path(target)
    lab = load(released, lab).lab
    run = RUN % {"skeleton": json.dumps(not_graded(STOPPED)), "lab": lab}
    carried = {
        f"released/{name}": released / name
        for name in ("release.json", "grading/bundle.json", f"student/{lab}.ipynb")
    }
    for name in CHECKOUT:
        inside = [root / name] if (root / name).is_file() else sorted((root / name).rglob("*"))
        carried |= {
            f"labkit/{path.relative_to(root).as_posix()}": path
            for path in inside
            if path.is_file() and "__pycache__" not in path.parts
        }

    def write(part: Path) -> None:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in (("setup.sh", SETUP), ("run_autograder", run)):
                program = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
                program.external_attr = 0o100755 << 16
                archive.writestr(program, text)
            for name, path in carried.items():
                archive.write(path, name)

    files.write_atomically(target, write)
    return target


def not_graded(why: str) -> dict:
    """A result without a verdict: Gradescope wants a number, so the text says that it is none."""
    return _without_tests(f"Not graded, and no mark. For the instructor: {why}")


def result(root: Path, lab: str) -> dict:
    """What Gradescope is to show for the hand-in in root/submission; NoJail where it cannot be contained."""
    from labkit.classroom import archives
    from labkit.classroom.downloads import _by_itself, _notebook
    from labkit.grading.intake import Rejected

    with archives.opened(root / "submission") as entries:
        found = [entry for entry in entries if _notebook(entry) and not _by_itself(entry.name)]
    labs = found if len(found) == 1 else [entry for entry in found if _has_cells(entry, lab)]
    if len(labs) != 1:
        which = f", of which {len(labs) or 'none'} with cells of {lab}" if len(found) > 1 else ""
        return _without_tests(f"Hand in one notebook (.ipynb); {len(found)} were handed in{which}.")
    try:
        data = labs[0].read()
    except Rejected as error:
        return _without_tests(f"The notebook was not read: {error}.")
    shown = _graded(root, lab, data)
    if len(found) > 1:
        other = f"Of {len(found)} notebooks, {ascii(labs[0].name)} was looked at: it has the cells of {lab}."
        shown["output"] = f"{shown['output']} {other}"
    return shown


def _has_cells(entry: Entry, lab: str) -> bool:
    """Whether it is a notebook with the cells of this lab; one with those of another is not meant."""
    from labkit.grading import intake
    from labkit.lessons import exercises

    try:
        return not intake.exercises(intake.cells(entry.read())).isdisjoint(exercises(lab))
    except intake.Rejected:
        return False


def student(metadata: Path) -> str:
    """Whose hand-in it is, by the name that `labkit collect` gives it in Gradescope's export.

    Inputs are drawn from that name, so that a verdict there is the verdict here.
    """
    from labkit.classroom.downloads import safe
    from labkit.classroom.gradescope import Group, member

    try:
        about = json.loads(metadata.read_text(encoding="utf-8"))
        return safe(Group(tuple(map(member, about["users"])), "").name, str(int(about["id"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "student"


def main() -> None:
    try:
        found = result(ROOT, sys.argv[1])
    except (RuntimeError, ValueError, OSError) as error:  # NoJail is a RuntimeError
        print(error)  # all of it, for the instructor
        found = not_graded((str(error).splitlines() or [STOPPED])[0])
    text = json.dumps(found, indent=1) + "\n"
    files.write_atomically(
        ROOT / "results" / "results.json", lambda part: part.write_text(text, encoding="utf-8")
    )


def _graded(root: Path, lab: str, notebook: bytes) -> dict:
    from labkit.classroom import feedback, gradescope, marks, misconceptions
    from labkit.grading.grade import grade
    from labkit.grading.release import load

    released = root / "source" / "released"
    with tempfile.TemporaryDirectory() as folder:
        hand_ins, out = Path(folder, "hand-ins"), Path(folder, "marks")
        hand_ins.mkdir()
        (hand_ins / f"{student(root / 'submission_metadata.json')}.ipynb").write_bytes(notebook)
        grade(hand_ins, released, out, lab, workers=1, progress=False)
        lines = marks.read(out)
    if lines[0]["score"] is None:
        return not_graded(lines[0]["reason"])
    named = misconceptions.named(load(released, lab), lines)
    return gradescope.results(lines[0], feedback.shown(lab), named)


def _without_tests(output: str) -> dict:
    return {"score": 0.0, "output": output, "output_format": "text", "visibility": "visible", "tests": []}


if __name__ == "__main__":
    main()
