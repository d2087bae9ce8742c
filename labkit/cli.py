"""The `labkit` command. Subcommands import what they need when they run, so that help comes at once."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from typer.core import TyperCommand

from labkit import paths
from labkit.classroom import commands

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

Scheduler = commands.Scheduler
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
app.add_typer(commands.app)


class SeveralValues(TyperCommand):
    """A command whose options may be given several values at once: `--seeds 0 1 2` is `--seeds 0 --seeds 1
    --seeds 2`. It can have no arguments, which could not be told from values."""

    def parse_args(self, ctx, args):
        several = {name for option in self.params if option.multiple for name in option.opts}
        spread, option = [], None
        for before, word in zip([None, *args], args, strict=False):
            if word.startswith("-"):
                option = word if word in several else None
            elif option and before != option:
                spread.append(option)
            spread.append(word)
        return super().parse_args(ctx, spread)


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
def get(
    name: Annotated[str | None, typer.Argument(help="As hippocampus; without one, all are listed.")] = None,
) -> None:
    """Bring public scans to this computer: a task of the Medical Segmentation Decathlon, for --data.

    \b
    Examples:
      labkit get
      labkit get hippocampus
      labkit train --data hippocampus --method lora
    """
    from labkit.scans import get

    if name is None:
        for task in get.tasks():
            here = f"  {get.place(task)}" if get.place(task).is_dir() else ""
            typer.echo(f"{task.split('_')[1].lower():<14} {task}{here}")
        typer.echo(f"\nAll: {get.LICENCE}. `labkit get NAME` says a task's size before it begins.")
        return
    typer.echo(get.get(get.task_named(name), typer.echo))


@app.command("demo-folder")
def demo_folder(
    out: Annotated[Path, typer.Argument(help="The folder to make; one that is there is left alone.")],
) -> None:
    """Make a small folder of digital CT scans to practise on, one of them broken on purpose.

    \b
    Examples:
      labkit demo-folder demo-kidney
      labkit train --data demo-kidney --method lora --seconds 60
    """
    from labkit.phantoms.demo_folder import LICENCE, demo_folder

    typer.echo(f"{demo_folder(out)}: twelve scans of eleven patients, and one without labels ({LICENCE}).")
    typer.echo("One scan is broken on purpose. Lab 11 goes from here to a labelled scan and a model card.")


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


@app.command(cls=SeveralValues)
def train(
    data: Annotated[
        Path | None, typer.Option(help="Scans as of the Decathlon, BraTS or KiTS; or a name of labkit get.")
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Tuning methods, lora if none; a wrong name lists them all.")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seeds", "--seed", min=0, help="Of initial values and slices.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="RUN, a new folder: networks, table, figure, log.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in RUN with what is missing.")] = False,
    rate: Annotated[
        list[float] | None, typer.Option(help="Learning rates to choose from; else the method's own, 3 or 4.")
    ] = None,
    validation: Annotated[
        list[str] | None,
        typer.Option(help="Patients to choose rates on: how many, or their names; else 15 %."),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="A threshold; a head on a frozen random network.")
    ] = True,
    steps: Annotated[int | None, typer.Option(min=1, help="Of a training; 150 with --out.")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=1, help="Of a training, in place of steps; 60 without --out.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="tiny, or at full scale vit_b16 or swin_t.")] = "tiny",
    decoder: Annotated[str, typer.Option(help="light, linear, upernet; swin_unet for swin_t.")] = "light",
    weights: Annotated[Path | None, typer.Option(help="Those of the backbone, in a file.")] = None,
    slices: Annotated[int, typer.Option(min=1, max=16, help="Neighbours in a run; a step sees 16.")] = 1,
    crop: Annotated[bool, typer.Option("--crop", help="Windows of the scans, not whole slices.")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="Two steps on a digital patient.")] = False,
) -> None:
    """Train on real volumes and report Dice per label on held-out patients.

    With --out every method is trained with every seed, at the rate that does best on validation patients, and
    RUN keeps each network (labkit predict RUN), a table with intervals over seeds and patients, controls,
    losses and a figure. Stopped at any moment, the same command with --resume goes on there. Without --out it
    is a look: one seed and rate, beside head and scratch, and nothing is kept.

    \b
    Examples:
      labkit train --data hippocampus --method lora --seconds 60
      labkit train --data hippocampus --method lora full head --seeds 0 1 2 --out RUN
      labkit train --data hippocampus --method lora full head --seeds 0 1 2 --out RUN --resume
      labkit train --data Task04_Hippocampus --method med_tuning --slices 4 --validation 10 --out RUN
      labkit train --data FOLDER --method lora --rate 1e-3 --no-controls --steps 400 --out RUN
      labkit train --data BraTS2020 --method lora --crop --backbone vit_b16 --decoder upernet --out RUN
      labkit train --backbone vit_b16 --decoder upernet --method med_tuning --smoke
    """
    methods, seeds = method or ["lora"], seeds or [0]
    if smoke:
        if data or steps or seconds or out:
            raise typer.BadParameter("--smoke takes two steps of its own: leave --data and the like out")
        from labkit.training.full_scale import smoke_test

        for line in smoke_test(
            backbone, decoder, _only(methods, "--method"), weights, _only(seeds, "--seeds")
        ):
            typer.echo(line)
        return
    if not data:
        raise typer.BadParameter("name a folder of scans with --data, or try a digital patient with --smoke")
    if steps and seconds:
        raise typer.BadParameter("give --steps or --seconds, not both")
    if not out and (resume or rate or validation or not controls or len(seeds) > 1):
        raise typer.BadParameter(
            "--resume, --rate, --validation, --no-controls and several --seeds are of a study: name a folder "
            "for it with --out"
        )
    from labkit.scans.get import folder_of
    from labkit.studies.own_folder import train_on_folder
    from labkit.studies.table import markdown
    from labkit.training.fit import Recipe

    data = folder_of(data)
    recipe = Recipe(batch_size=16 // slices, slices=slices, crop=crop, seed=seeds[0])
    if not out:
        network = dict(backbone=backbone, decoder=decoder, weights=weights or "default")
        rows = train_on_folder(data, methods, steps, seconds, recipe, **network)
        typer.echo(
            f"{markdown(rows)}\n\nDice on held-out patients; seed {seeds[0]}. Nothing is kept without --out."
        )
        return
    from labkit.studies.own_study import train_study
    from labkit.studies.run_folder import in_words

    results = train_study(
        data,
        out,
        methods,
        seeds,
        rate or (),
        validation or (),
        controls,
        replace(recipe, steps=steps or recipe.steps),
        seconds,
        resume,
        backbone,
        decoder,
        weights,
    )
    typer.echo(f"{in_words(results)}\nKept in {out}: networks/, table.md, table.csv, losses.csv, figure.png.")
    typer.echo(f"To use the best network: labkit predict {out} IMAGES --out labels.nii.gz")


@app.command()
def table() -> None:
    """Print the lecture's parameter tables, the paper's numbers beside counted ones."""
    from labkit.studies.parameter_tables import formula_table, med_tuning_table

    for text in (med_tuning_table("vit"), med_tuning_table("swin"), formula_table()):
        typer.echo(f"{text}\n")


@app.command("deltas")
def train_deltas(
    names: Annotated[list[str] | None, typer.Argument(help="Some of them; what is missing if none.")] = None,
) -> None:
    """Train the deltas behind the explorers (data/deltas/), a minute or two each."""
    from labkit.explore.deltas import DELTAS, make, place

    for name in names or [name for name in DELTAS if not place(name).exists()]:
        typer.echo(make(name))


@app.command()
def sweep(
    name: Annotated[
        str | None, typer.Argument(help="A recipe of the kit, or a file NAME.toml of yours; a list if none.")
    ] = None,
    row: Annotated[list[str] | None, typer.Option(help="This row alone; may be given several times.")] = None,
    only_table: Annotated[bool, typer.Option("--table", help="Train nothing, print what is there.")] = False,
    score: Annotated[str, typer.Option(help="dice, lesion_dice or false_lesions.")] = "dice",
    data: Annotated[Path | None, typer.Option(help="Scans of a recipe that makes no patients.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for results, not data/results/.")] = None,
    scheduler: Scheduler = None,
    workers: Annotated[int, typer.Option(min=1, help="So many trainings at once on this computer.")] = 1,
) -> None:
    """Make the missing trainings of a table, and print it; may be stopped and goes on there.

    labkit sweep brain --row LoRA --row ST-Adapter
    """
    from labkit.scans.get import folder_of
    from labkit.studies import recipe, run, store, table

    if not name:
        for known in recipe.names():
            typer.echo(f"{known}: {recipe.sweep(known).about}")
        return
    data = folder_of(data) if data else None
    results = store.results(name, out, data)
    if not only_table:
        run.run(results, row or (), scheduler, data, workers)
    typer.echo(f"{results.sweep.about}\n\n{table.table(results, score)}")


@app.command()
def report(
    run: Annotated[
        Path | None, typer.Argument(help="A folder that labkit train --out made; the kit's own if none.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write to; report/, in RUN's case there.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Trainings that are not in data/results/.")] = None,
) -> None:
    """Write a page of all tables and figures from the trainings that are there: index.html and tables.md.

    \b
    Examples:
      labkit report
      labkit report RUN
    """
    from labkit.studies.report import report, report_study

    if run and results:
        raise typer.BadParameter("give RUN or --results, not both")
    typer.echo(report_study(run, out or run / "report") if run else report(out or Path("report"), results))


@app.command()
def predict(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="[RUN] IMAGES...",
            help="A folder of labkit train --out, or none with --delta; then one NIfTI file per channel, in "
            "training's order, or one with all of them.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The label map to write, .nii.gz.")],
    delta: Annotated[Path | None, typer.Option(help="A network's file, in place of RUN.")] = None,
    method: Annotated[str | None, typer.Option(help="Of RUN; else the best on validation patients.")] = None,
    windows: Annotated[bool, typer.Option("--windows", help="As if it was trained on crops.")] = False,
    flips: Annotated[str, typer.Option(help="Mean over mirrored scans: W left-right, SHW all 8.")] = "",
    weights: Annotated[
        Path | None, typer.Option(help="The backbone's, if it was trained on a file that RUN does not name.")
    ] = None,
) -> None:
    """Label a scan with a network trained in the lab, on the scan's own grid. Not for patients' care.

    \b
    Examples:
      labkit predict RUN scan.nii.gz --out labels.nii.gz
      labkit predict RUN scan.nii.gz --method full --out labels.nii.gz
      labkit predict --delta data/deltas/volumes-med_tuning.safetensors --out labels.nii.gz \\
          t1.nii.gz t1ce.nii.gz t2.nii.gz flair.nii.gz
    """
    if delta is None:
        run, *images = images
        if not run.is_dir() or not images:
            raise typer.BadParameter(
                "name a folder that labkit train --out made and then the scan, or a network's file by --delta"
            )
        from labkit.studies.run_folder import best_network, opened

        delta, which, its_weights = best_network(opened(run), method)
        weights = weights or its_weights
        typer.echo(f"network: {which}")
    elif method:
        raise typer.BadParameter("--method chooses in RUN; --delta names a network already")
    from labkit.training.label_scan import label_scan

    for value, cm3 in label_scan(delta, images, out, windows, flips, weights).items():
        typer.echo(f"label {value}: {cm3:.1f} cm3")
    typer.echo(out)


@app.command()
def distill(
    images: Annotated[Path, typer.Option(help="An .npz with JPEGs as `bytes` and `offsets`.")],
    teacher: Annotated[Path, typer.Option(help="The ViT-S/14 teacher, .safetensors.")],
    out: Annotated[Path, typer.Option(help="Where to write the student, .safetensors.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps; an interrupted run goes on.")] = 3000,
) -> None:
    """Make the bundled backbone: teach a small ViT what a large one sees in natural images."""
    from labkit.training.distill import Recipe, distill

    for name, value in distill(images, teacher, out, Recipe(steps=steps)).items():
        typer.echo(f"{name}: {value}")


def main() -> None:
    """The entry point: what is wrong with the user's input is one sentence on stderr and exit code 2.

    LABKIT_TRACEBACK=1 shows where it happened.
    """
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


def _only(values: list, option: str):
    """The one value of an option. BadParameter: there are several."""
    if len(values) > 1:
        raise typer.BadParameter(f"--smoke takes one {option}")
    return values[0]


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
