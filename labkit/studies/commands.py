"""Commands for one's own work: scans, trainings, tables, labels; each imports what it needs as it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand

app = typer.Typer(rich_markup_mode=None)

Scheduler = Annotated[str | None, typer.Option(help="Of a Dask cluster, tcp://HOST:PORT.")]


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


def _only(values: list, option: str):
    """The one value of an option. BadParameter: there are several."""
    if len(values) > 1:
        raise typer.BadParameter(f"--smoke takes one {option}")
    return values[0]
