"""The commands around the grader: what is handed in, what goes out. Each imports its needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labkit import paths

if TYPE_CHECKING:
    from labkit.lessons.feedback import Feedback

app = typer.Typer(rich_markup_mode=None)

Marks = Annotated[Path, typer.Argument(help="The folder that `labkit grade` wrote.")]
OneLab = Annotated[str | None, typer.Option(help="Which lab, if there are several.")]
Submissions = Annotated[Path, typer.Argument(help="A folder with one notebook, or folder, per student.")]
Released = Annotated[Path, typer.Argument(help="The folder that `labkit release` wrote.")]
Ledger = Annotated[Path, typer.Argument(help="Where marks and ledger go; what is there is not graded again.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Notebooks at a time; one per core.")]
Scheduler = Annotated[str | None, typer.Option(help="Of a Dask cluster, tcp://HOST:PORT.")]


@app.command()
def release(
    out: Annotated[Path, typer.Argument(help="The folder to write to.")],
    names: Annotated[list[str] | None, typer.Argument(help="Labs such as 02; all if none is named.")] = None,
) -> None:
    """Write the student's and the instructor's editions, and what is needed to grade them."""
    from labkit.grading.release import release

    typer.echo(release(out, names or []))


@app.command()
def submit(
    name: Annotated[str, typer.Argument(help="A lab of your workbook, as 04; or a notebook file.")],
    workbook: Annotated[
        Path | None, typer.Option(help="Your workbook; the one you are in, or workbook/ in the checkout.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the file goes; hand-in/ in your workbook.")] = None,
) -> None:
    """Make the file to hand in, and look at it as the grader will; earlier ones stay as they are.

    \b
    Examples:
      labkit submit 04
      labkit submit "workbook/04_lora (new edition).ipynb" --out Desktop
    """
    from labkit.classroom import submit
    from labkit.classroom.check import check_notebook
    from labkit.lessons import labs
    from labkit.release.workbook import newest

    folder, path = paths.workbook(workbook), Path(name)
    lab = submit.lab_of(path) if path.is_file() else paths.lab_named(name, labs())
    path = path if path.is_file() else newest(folder, lab)
    made = submit.pack(path, submit.edition(lab), out or folder / "hand-in")
    typer.echo(f"Hand in this one file: {made.file}")
    verdicts = check_notebook(path).feedback  # the file is made: an answer that never ends costs no hand-in
    for exercise, said in made.found.items():
        typer.echo(f"{exercise}: {said}{_verdict(verdicts[exercise])}")
    for remark in made.remarks:
        typer.echo(f"note: {remark}")


def _verdict(feedback: Feedback) -> str:
    """What the lab's check says of an answer, in a few words; nothing where there is none."""
    from labkit.lessons.feedback import NOT_ATTEMPTED

    if feedback.status == NOT_ATTEMPTED:
        return ""
    if feedback:
        return ", and it passes the lab's check"
    why = feedback.misconception or next((text for label, text in feedback.lines if label == "But"), "")
    return f", but it does not pass the lab's check ({feedback.broken}{f': {why}' if why else ''})"


@app.command()
def collect(
    download: Annotated[Path, typer.Argument(help="A folder, a .zip, or a download of a platform.")],
    out: Annotated[Path, typer.Argument(help="The folder to make: one notebook per student, and a list.")],
) -> None:
    """Sort a folder, a zip, or a download of Canvas, Moodle or Gradescope into one notebook per student.

    \b
    Examples:
      labkit collect submissions.zip hand-ins
      labkit collect assignment_4711_export hand-ins
    """
    from labkit.classroom.downloads import collect
    from labkit.grading.submitter import LIST, printable

    found = collect(download, out)
    for one in found:
        if not one.kept:
            typer.echo(printable(f"left out: {one.entry.name} ({one.student or 'nobody'}): {one.note}"))
    kept = sum(one.kept for one in found)
    typer.echo(f"{kept} notebooks in {out}, {len(found) - kept} files left out; {LIST} there lists all.")


@app.command()
def grade(
    submissions: Submissions,
    release: Released,
    out: Ledger,
    lab: OneLab = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    again: Annotated[bool, typer.Option("--again", help="Also what had no verdict in three runs.")] = False,
) -> None:
    """Grade a class in a jail; exits with 3 where students' code can't be contained."""
    from labkit.classroom import marks
    from labkit.grading.grade import grade
    from labkit.grading.submitter import printable

    path = grade(submissions, release, out, lab=lab, workers=workers, scheduler=scheduler, again=again)
    for sentence in marks.without_score(out):
        typer.echo(printable(sentence))
    typer.echo(path)


@app.command()
def regrade(
    submissions: Submissions,
    release: Released,
    out: Ledger,
    why: Annotated[str, typer.Option(help="The reason, written down with every new line.")],
    lab: OneLab = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Grade all again, for a reason; the old lines of the ledger stay."""
    from labkit.grading.grade import regrade

    typer.echo(regrade(submissions, release, out, why, lab=lab, workers=workers, scheduler=scheduler))


@app.command()
def feedback(
    out: Marks,
    released: Annotated[Path, typer.Argument(help="The folder that `labkit release` wrote.")],
    lab: OneLab = None,
) -> None:
    """Write OUT/feedback/STUDENT.html for each student, and OUT/class.html for you, without names.

    \b
    Example:
      labkit feedback marks released
    """
    from labkit import files
    from labkit.classroom import class_page, feedback, marks, misconceptions
    from labkit.grading.release import load

    lines = marks.read(out, lab)
    named = misconceptions.named(load(released, lines[0]["lab"]), lines)
    written = feedback.write(lines, named, feedback.shown(lines[0]["lab"]), out / "feedback")
    content = class_page.class_page(lines, named)
    files.write_atomically(out / "class.html", lambda part: part.write_text(content, encoding="utf-8"))
    typer.echo(f"{len(written)} pages in {out / 'feedback'}; {len(named)} mistakes have a name.")
    typer.echo(out / "class.html")


@app.command()
def export(
    out: Marks,
    to: Annotated[str, typer.Option(help="csv, canvas, moodle or gradescope.")] = "csv",
    into: Annotated[Path | None, typer.Option(help="The file that Canvas or Moodle exported.")] = None,
    assignment: Annotated[str | None, typer.Option(help="Canvas: the column's title or number.")] = None,
    lab: OneLab = None,
    target: Annotated[Path | None, typer.Option("--out", help="Where to write; OUT/canvas.csv, ...")] = None,
) -> None:
    """Marks as a table, or set into the file that Canvas or Moodle exported; prints every change.

    \b
    Examples:
      labkit export marks
      labkit export marks --to canvas --into gradebook.csv --assignment "Lab 04"
      labkit export marks --to moodle --into worksheet.csv --out upload.csv
      labkit export marks --to gradescope
    """
    from labkit.classroom.exports import export
    from labkit.grading.submitter import printable

    path, said = export(out, to, into, assignment, lab, target)
    for sentence in said:
        typer.echo(printable(sentence))
    typer.echo(path)


@app.command()
def autograder(
    released: Annotated[Path, typer.Argument(help="The folder that `labkit release` wrote.")],
    lab: Annotated[str | None, typer.Option(help="Which lab, if the release has several.")] = None,
    out: Annotated[Path, typer.Option(help="The zip to write; keep it to yourself.")] = Path(
        "autograder.zip"
    ),
) -> None:
    """Make the zip that Gradescope asks for as an autograder: it grades each hand-in there, in a jail.

    \b
    Example:
      labkit autograder released --lab 02 --out autograder.zip
    """
    from labkit.classroom.autograder import build

    typer.echo(build(released, out, lab))


@app.command()
def demo_class(
    out: Annotated[Path, typer.Option(help="The folder to make.")],
) -> None:
    """Make a class to try all of this on: a release of lab 00, a download of 12 hand-ins, a gradebook.

    \b
    Example:
      labkit demo-class --out demo
    """
    from labkit.classroom.demo_class import demo_class

    for line in demo_class(out):
        typer.echo(line)
