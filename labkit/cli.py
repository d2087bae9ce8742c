"""The `labkit` command. Subcommands import what they need when they run, so that help comes at once."""

from __future__ import annotations

import atexit
import gc
import os
import socket
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from labkit import paths, threads
from labkit.classroom import commands as classroom
from labkit.studies import commands as studies

EXAMPLES = """\b
Examples:
  labkit start                                       make your workbook and open JupyterLab in it
  labkit start --no-browser --port 9000              the same on port 9000, and only print the address
  labkit doctor                                      look for what is wrong on this computer
  labkit check 02                                    check your saved answers of lab 02
  labkit progress                                    what you have solved so far
  labkit reset 00 dice                               begin an exercise again; your answer stays as a comment
  labkit submit 02                                   make the file to hand in
  labkit run 02                                      execute lab 02 without a browser
  labkit release released 02                         editions of lab 02, and what is needed to grade
  labkit collect submissions.zip hand-ins            sort a download into one notebook per student
  labkit grade hand-ins released marks               grade a folder of notebooks
  labkit feedback marks released                     a page per student, and one about the class
  labkit export marks --to canvas --into gradebook.csv --assignment "Lab 02"
  labkit build                                       make all notebooks from their sources, with outputs
  labkit table                                       the lecture's parameter tables, counted
  labkit demo-folder demo-kidney                     scans to practise on, one of them broken on purpose
  labkit train --data hippocampus --method lora full head --seeds 0 1 2 --out RUN
"""

Workbook = Annotated[
    Path | None, typer.Option(help="Your workbook; the one you are in, or workbook/ in the checkout.")
]

app = typer.Typer(
    help="Take parameter-efficient fine-tuning apart, on medical images.\n\n" + EXAMPLES,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(studies.app)
app.add_typer(classroom.app)


@app.command()
def start(
    workbook: Workbook = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="This port, or the next free one.")] = 8888,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
) -> None:
    """Make the workbook, never overwriting your work, and open JupyterLab in it."""
    from jupyterlab.labapp import LabApp

    from labkit.classroom import start_page
    from labkit.lessons import progress
    from labkit.release.workbook import make_workbook

    folder = (workbook or paths.checkout_root() / "workbook").resolve()
    new = make_workbook(folder)
    progress.begin(folder)
    page = start_page.make(folder)
    typer.echo(f"Your workbook is {folder} ({len(new)} new file{'s'[: len(new) != 1]}). Stop with Ctrl-C.")
    free = _free_port(port)
    if free != port:
        typer.echo(f"Port {port} is taken, perhaps by a lab still running; this one uses {free}.")
    os.chdir(folder)
    settings = [str(paths.PACKAGE / "jupyter"), os.environ.get("JUPYTER_CONFIG_PATH")]  # no news, no updates
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # `labkit`
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, settings))
    LabApp.launch_instance(
        [
            f"--ServerApp.root_dir={folder}",
            f"--ServerApp.port={free}",
            f"--LabApp.default_url=/lab/tree/{quote(page.name)}",
            "--Application.log_level=WARN",  # the address is printed all the same
            *["--no-browser"] * no_browser,
            *["--allow-root"] * (hasattr(os, "geteuid") and os.geteuid() == 0),  # as in containers
        ]
    )


@app.command()
def doctor(
    workbook: Workbook = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Try to break out of the grader's jail.")
    ] = False,
) -> None:
    """Look for what is wrong on this computer; exits with 1 when something must be cured."""
    if sandbox:
        from labkit.grading import cgroup
        from labkit.grading.probes import report

        held = "held by a control group of Linux" if cgroup.possible() else "counted fifty times a second"
        fine = f"students' code can be contained on this computer: no probe got out; its memory is {held}"
        found = report()
        for reason in found or [fine]:
            typer.echo(reason)
        raise typer.Exit(3 if found else 0)
    from labkit.doctor import examine

    root = paths.PACKAGE.parent
    findings = examine(
        lock=root / "requirements.lock",
        data=paths.data_dir(),
        workbook=workbook or root / "workbook",
        cache=paths.cache_dir(),
    )
    for one in findings:
        typer.echo(f"{one.status:<4}  {one.name:<12}  {one.detail}")
        if one.cure:
            typer.echo(f"      {'':<12}  -> {one.cure}")
    raise typer.Exit(any(one.status == "fail" for one in findings))


@app.command()
def build(
    names: Annotated[list[str] | None, typer.Argument(help="Labs such as 02; all if none is named.")] = None,
) -> None:
    """Make notebooks/NN_name.ipynb, executed and with outputs, from notebooks/NN_name.py."""
    from labkit.release.build import build

    for path in build(names or []):
        typer.echo(path)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="A lab: its number or its name, as 02.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the executed notebook.")] = None,
) -> None:
    """Execute one lab without a browser and print where the result lies."""
    from labkit.release.build import run

    typer.echo(run(name, out))


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A lab of your workbook, as 04; or a notebook file.")],
    workbook: Workbook = None,
) -> None:
    """Check your saved answers of one lab, as the lab itself does; exits with 1 while some are not right."""
    from labkit.classroom.check import check_notebook

    path = Path(name)
    lab = check_notebook(path if path.is_file() else _file(name, workbook))
    for exercise in lab.exercises:
        typer.echo(f"{lab.feedback[exercise]}\n")
    for remark in lab.remarks:
        typer.echo(f"note: {remark}")
    typer.echo(lab.progress())
    raise typer.Exit(not all(lab.feedback.values()))


@app.command()
def reset(
    name: Annotated[str, typer.Argument(help="A lab of your workbook, as 00; or a notebook file.")],
    exercise: Annotated[str, typer.Argument(help="The exercise to begin again, as dice.")],
    workbook: Workbook = None,
) -> None:
    """Begin an exercise again: its stub comes back, and your answer stays below it as a comment.

    Close the lab's tab before. In the lab itself `lab.reset("dice")`, as the first line of the answer's own
    cell, does the same.

    \b
    Example:
      labkit reset 00 dice
    """
    from labkit.classroom import submit
    from labkit.release import workbook as files

    path = Path(name) if Path(name).is_file() else _file(name, workbook)
    files.reset(path, submit.lab_of(path), exercise)
    typer.echo(f"{path}: {exercise} is a stub again, and your answer stands below it as a comment.")


@app.command()
def update(
    name: Annotated[str, typer.Argument(help="A lab of your workbook, as 04.")],
    workbook: Workbook = None,
) -> None:
    """Bring answers over into the newest edition of a lab, where it has none; older files stay as they are.

    \b
    Example:
      labkit update 04
    """
    from labkit.lessons import labs
    from labkit.release.workbook import bring_over

    folder = paths.workbook(workbook)
    path, names = bring_over(folder, paths.lab_named(name, labs()))
    said = f"it has your answers to {', '.join(names)} now" if names else "no answer was left behind"
    typer.echo(f"{path}: {said}.")


@app.command()
def progress(workbook: Workbook = None) -> None:
    """What is solved in your workbook, lab by lab, and where to go on.

    \b
    Example:
      labkit progress
    """
    from labkit.lessons import exercises, labs, progress

    kept = progress.read(paths.workbook(workbook))
    following = None
    for lab in labs():
        names = exercises(lab)
        done = progress.solved(kept, lab) & names.keys()
        left = [name for name in names if name not in done]
        following = following or (lab if left else None)
        state = "all solved" if not left else f"left: {', '.join(left)}"
        typer.echo(f"{lab:<15} {len(done)} of {len(names)}  {state if done else ''}".rstrip())
    typer.echo(f"\nGo on with {following}." if following else "\nEverything is solved.")


@app.command()
def explorer(
    name: Annotated[str, typer.Argument(help="rank, prompts, adapters, med_tuning, prune or bits.")],
    out: Annotated[Path, typer.Option(help="The page to write, a new .html file.")],
    patient: Annotated[int, typer.Option(min=0, max=2, help="Which of the three test patients.")] = 0,
) -> None:
    """Write an explorer as one HTML file: sliders that move on a slide, on a phone, without a kernel.

    \b
    Examples:
      labkit explorer rank --out rank.html
      labkit explorer med_tuning --patient 1 --out med_tuning.html
    """
    from labkit.explore.page import EXPLORERS, opened

    if name not in EXPLORERS:
        raise typer.BadParameter(f"there is no explorer {name!r}; there are {', '.join(EXPLORERS)}")
    if out.exists():
        raise typer.BadParameter(f"{out} is there already; name a new file, nothing is overwritten")
    made = opened(name)
    made.patient.value = patient
    typer.echo(made.save(out))


@app.command()
def site(out: Annotated[Path, typer.Option(help="A new folder for the pages.")] = Path("site")) -> None:
    """Write the course as pages to read: labs with outputs and no answers, live explorers, guides.

    \b
    Example:
      labkit site --out site
    """
    from labkit.classroom.site import build

    typer.echo(build(out))


def main() -> None:
    """The entry point: what is wrong with the user's input is one sentence on stderr and exit code 2.

    LABKIT_TRACEBACK=1 shows where it happened.
    """
    threads.wait_briefly()
    atexit.register(gc.freeze)  # to look for rubbish in all of torch at the end would take a second
    try:
        app()
    except (ValueError, OSError, RuntimeError) as error:
        if type(error).__name__ == "NoJail":  # known by name: the grader is imported only when it is used
            typer.echo(f"labkit: {error}", err=True)
            sys.exit(3)
        if isinstance(error, RuntimeError):
            raise
        if os.environ.get("LABKIT_TRACEBACK") == "1":
            raise
        typer.echo(f"labkit: {error}", err=True)
        sys.exit(2)


def _file(name: str, workbook: Path | None) -> Path:
    """The file of a lab ("04") that counts in a workbook."""
    from labkit.lessons import labs
    from labkit.release.workbook import newest

    return newest(paths.workbook(workbook), paths.lab_named(name, labs()))


def _free_port(first: int) -> int:
    """The first port from `first` on that nobody listens on."""
    for port in range(first, min(first + 50, 65536)):
        with socket.socket() as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port just left is free
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ValueError(f"no free port from {first} on: stop other programs, or choose with --port")
