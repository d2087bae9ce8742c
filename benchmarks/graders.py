"""Twenty honest submissions, graded by labkit, by nbgrader and by otter-grader, in turn, on one machine.

`python benchmarks/graders.py` installs the other two from PyPI into a temporary folder, where they share this
environment's packages, grades the same answers with each, and prints submissions per minute as Markdown,
then where labkit's time goes. Each of the three must give everyone full marks, or there is no number.

The other two get what suits them: a notebook of nothing but imports, answers and tests, whose tests are the
lab's own challenges. labkit gets the whole lab, as it is handed in. labkit and otter-grader (`otter run`, its
mode without Docker, one process per submission) use all cores; `nbgrader autograde` knows one only.
"""

from __future__ import annotations

import argparse
import collections
import csv
import dataclasses
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import nbformat

from labkit import paths
from labkit.grading import bench, evidence, intake, jail, kernel, plugin
from labkit.grading.bench_process import start_zygote
from labkit.grading.grade import DEFAULT, cores, grade
from labkit.grading.release import load, release
from labkit.grading.worker import LEAN
from labkit.release import editions

TEST = """from labkit.lessons import exercises
from labkit.lessons.exercise import check
from labkit.lessons.feedback import PASS
assert check({name!r}, exercises({lab!r})[{name!r}], {name}).status == PASS"""


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parse.add_argument("--lab", default="00")
    parse.add_argument("--count", type=int, default=20)
    parse.add_argument("--only", nargs="*", default=["labkit", "nbgrader", "otter-grader"])
    parse.add_argument("--tools", type=Path, help="where to keep the other graders for a next time")
    given = parse.parse_args()
    with tempfile.TemporaryDirectory(prefix="graders-") as name:
        folder, rows = Path(name), []
        release(folder / "release", [given.lab])
        tools = given.tools or folder / "tools"
        for tool in given.only:
            grader = GRADERS[tool]
            if tool != "labkit":
                install(tools / tool, tool)
            ready = grader(folder, tools / tool, given.lab, given.count)
            before, begin = os.getloadavg()[0], time.perf_counter()
            marks = ready()
            seconds = time.perf_counter() - begin
            if len(marks) != given.count or set(marks) != {1.0}:
                raise SystemExit(f"{tool} did not give everyone full marks: {marks}")
            rows.append(
                (tool, found_version(tools / tool, tool), seconds, 60 * given.count / seconds, before)
            )
        print(f"\n{given.count} submissions of lab {given.lab}, {cores()} workers\n")
        print("| grader | version | seconds | submissions per minute | load before |\n|---|---|---|---|---|")
        for tool, number, seconds, rate, load_before in rows:
            print(f"| {tool} | {number} | {seconds:.1f} | {rate:.1f} | {load_before:.1f} |")
        rates = {tool: rate for tool, _, _, rate, _ in rows}
        if others := [rate for tool, rate in rates.items() if tool != "labkit"]:
            print(f"\nlabkit is {rates.get('labkit', 0) / max(others):.1f} times as fast as the faster other")
        if "labkit" in rates:
            print(profile(folder))


def install(folder: Path, tool: str) -> None:
    """A virtual environment for one tool that sees this one's packages too, so torch is not fetched again."""
    if (folder / "bin" / tool.split("-")[0]).exists():
        return
    venv.create(folder, with_pip=True)
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", tool], check=True)


def environment(tool: Path) -> dict[str, str]:
    """For a tool's processes: its own programs first, labkit importable, one thread as for labkit."""
    path = f"{tool / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, **LEAN, "PATH": path, "PYTHONPATH": str(paths.PACKAGE.parent)}


def found_version(folder: Path, tool: str) -> str:
    if tool == "labkit":
        return version("labkit")
    command = f"from importlib.metadata import version; print(version({tool!r}))"
    return subprocess.check_output([folder / "bin" / "python", "-c", command], text=True).strip()


# the same answers, as each of the three wants them


def full(folder: Path) -> nbformat.NotebookNode:
    """The instructor's edition: the course's own answers."""
    return nbformat.read(next((folder / "release" / "instructor").glob("*.ipynb")), as_version=4)


def small(folder: Path) -> list[tuple[str, str, float]]:
    """(exercise, answer, points) of each exercise."""
    return [
        (cell.metadata.labkit.exercise, cell.source, float(cell.metadata.labkit.get("points", 1)))
        for cell in full(folder).cells
        if cell.cell_type == "code" and editions.role(cell) == "answer"
    ]


def imports(folder: Path) -> str:
    """Of the lab's imports those that the answers may need: nothing of labkit or for plots."""
    lines = [
        line for cell in full(folder).cells if cell.cell_type == "code" for line in cell.source.splitlines()
    ]
    return "\n".join(line for line in lines if line.startswith(("import numpy", "import torch")))


def names(count: int) -> list[str]:
    return [f"student{number:03d}" for number in range(count)]


def with_labkit(folder: Path, tool: Path, lab: str, count: int):
    hand_ins, notebook = folder / "hand-ins", full(folder)
    hand_ins.mkdir()
    for name in names(count):
        for cell in notebook.cells:
            if editions.role(cell) == "answer":
                cell.source = cell.source.rsplit("\n# by ", 1)[0] + f"\n# by {name}"
        nbformat.write(notebook, hand_ins / f"{name}.ipynb")

    def run() -> list[float]:
        grade(hand_ins, folder / "release", folder / "out", progress=False)
        lines = (folder / "out" / "ledger.jsonl").read_text().splitlines()
        return [line["score"] / line["points"] for line in map(json.loads, lines)]

    return run


def with_nbgrader(folder: Path, tool: Path, lab: str, count: int):
    course, code = folder / "nbgrader", nbformat.v4.new_code_cell
    cells = [code(imports(folder))]
    for name, answer, points in small(folder):
        mark = {"schema_version": 3, "grade": False, "solution": True, "locked": False, "task": False}
        cells.append(code(answer, metadata={"nbgrader": {**mark, "grade_id": name}}))
        mark = {**mark, "grade": True, "solution": False, "locked": True, "points": points}
        test = TEST.format(name=name, lab=lab)
        cells.append(code(test, metadata={"nbgrader": {**mark, "grade_id": f"{name}-test"}}))
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
    for path in [course / "source", *(course / "submitted" / name for name in names(count))]:
        (path / "lab").mkdir(parents=True)
        nbformat.write(notebook, path / "lab" / "lab.ipynb")
    (course / "nbgrader_config.py").write_text("c.CourseDirectory.course_id = 'course'\n")

    def nbgrader(*words: str) -> None:
        words = (tool / "bin" / "nbgrader", *words)
        run = subprocess.run(words, cwd=course, env=environment(tool), capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(run.stderr[-2000:])

    nbgrader("generate_assignment", "lab")

    def run() -> list[float]:
        nbgrader("autograde", "lab")
        return scores()

    def scores() -> list[float]:
        nbgrader("export")
        rows = list(csv.DictReader(open(course / "grades.csv")))
        return [float(row["score"]) / float(row["max_score"]) for row in rows]

    return run


def with_otter(folder: Path, tool: Path, lab: str, count: int):
    work, code = folder / "otter", nbformat.v4.new_code_cell
    (work / "tests").mkdir(parents=True)
    cells = [code(imports(folder))]
    for name, answer, points in small(folder):
        cells += [code(answer), code(f"grader.check({name!r})")]
        lines = TEST.format(name=name, lab=lab).splitlines()
        case = {"code": "\n".join(f">>> {line}" for line in lines), "hidden": False, "locked": False}
        suite = {"cases": [case], "scored": True, "setup": "", "teardown": "", "type": "doctest"}
        test = {"name": name, "points": points, "suites": [suite]}
        (work / "tests" / f"{name}.py").write_text(f"OK_FORMAT = True\ntest = {test!r}\n")
    start = "import otter\ngrader = otter.Notebook('lab.ipynb')"
    notebook = nbformat.v4.new_notebook(cells=[code(start), *cells], metadata={"kernelspec": KERNEL})
    for name in names(count):
        (work / name).mkdir()
        nbformat.write(notebook, work / name / "lab.ipynb")

    def otter(*words: str | Path) -> None:
        words = (tool / "bin" / "otter", *words)
        run = subprocess.run(words, cwd=work, env=environment(tool), capture_output=True, text=True)
        if run.returncode:
            raise SystemExit((run.stdout + run.stderr)[-2000:])

    otter("generate", "-t", "tests", "-o", "autograder.zip", "--no-environment")

    def one(name: str) -> float:
        otter("run", "--no-logo", "-a", "autograder.zip", "-o", name, Path(name) / "lab.ipynb")
        tests = json.loads((work / name / "results.json").read_text())["tests"]
        scored = [test for test in tests if test.get("max_score")]
        return sum(test["score"] for test in scored) / sum(test["max_score"] for test in scored)

    def run() -> list[float]:
        with ThreadPoolExecutor(cores()) as pool:
            return list(pool.map(one, names(count)))

    return run


KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
GRADERS = {"labkit": with_labkit, "nbgrader": with_nbgrader, "otter-grader": with_otter}


# where our time goes


def profile(folder: Path) -> str:
    """One worker, five submissions: seconds of each part of the work on one of them, as Markdown."""
    import pytest

    spent, begin = collections.Counter(), time.perf_counter()
    hand_ins = intake.collect(folder / "hand-ins")[:5]
    found = load(folder / "release")
    work = folder / "profile"
    work.mkdir()
    os.chdir(work)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    setup = {"number": 0, "lab": found.lab, "student": found.student, "exercises": found.exercises}
    setup |= {"release": found.id, "key": found.key, "preload": jail.PRELOAD, "outside": []}
    setup["limits"] = dataclasses.asdict(DEFAULT)
    worker = bench.Bench(work, setup, start_zygote(work, setup))
    start = time.perf_counter() - begin

    def timed(owner, name: str, part: str) -> None:
        inner = getattr(owner, name)

        def outer(*given, **named):
            begin = time.perf_counter()
            try:
                return inner(*given, **named)
            finally:
                spent[part] += time.perf_counter() - begin

        setattr(owner, name, outer)

    timed(intake, "read", "reading the file in its own process")
    timed(kernel.JailedKernel, "__init__", "starting kernels")
    timed(kernel.JailedKernel, "stop", "ending kernels")
    timed(evidence, "judge", "judging: calls into the jail, references")
    timed(pytest, "main", "pytest")
    plugin.JailedKernel = kernel.JailedKernel
    inner = worker._grade
    worker._grade = lambda job: {**inner(job), "spent": dict(spent), "processor": time.process_time()}
    total, jailed = collections.Counter(), _processor(worker.zygote)
    for one in hand_ins:
        begin = time.perf_counter()
        result = worker.grade({**dataclasses.asdict(one), "path": str(one.path)})
        total["all"] += time.perf_counter() - begin
        total["processor"] += result["processor"]
        total.update(result["spent"])
    jailed = _processor(worker.zygote) - jailed
    worker.zygote.close()
    parts = sum(total[part] for part in spent_parts(total))
    total["nbval: running the cells, and pytest itself"] = total.pop("pytest") - parts
    seconds, processor = total.pop("all"), total.pop("processor")
    rows = [(part, value / len(hand_ins)) for part, value in total.most_common()]
    lines = [f"| {part} | {value:.2f} | {value * len(hand_ins) / seconds:.0%} |" for part, value in rows]
    return "\n".join(
        [
            f"\nOne worker takes {start:.1f} s to start, then {seconds / len(hand_ins):.2f} s a submission "
            f"({processor / len(hand_ins):.2f} s of a processor for the grader, "
            f"{jailed / len(hand_ins):.2f} s for the jail); load {os.getloadavg()[0]:.1f}\n",
            "| part | seconds | share |\n|---|---|---|",
            *lines,
        ]
    )


def spent_parts(total: collections.Counter) -> list[str]:
    """The parts that lie within pytest."""
    return [part for part in total if part.startswith(("starting", "ending", "judging"))]


def _processor(zygote: jail.Zygote) -> float:
    """Processor seconds of the jail's ended kernels and of the zygote itself."""
    import psutil

    jail = psutil.Process(zygote.process.pid).children(recursive=True)
    return sum(sum(one.cpu_times()[:4]) for one in jail)


if __name__ == "__main__":
    main()
