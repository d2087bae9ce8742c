"""The page of results, on trainings that are pretended: what it says of them can then be known."""

from __future__ import annotations

import re

import pytest

from labkit.explore import deltas
from labkit.studies import recipe, report, store
from labkit.studies.statistics import SCORES

RECIPE = """
about = "Which <is> better?"
seeds = [0, 1]
decoder = "light"
data = { organ = "brain", ghosts = true, train = 1, validation = 1, test = 3 }
recipe = { steps = 2, batch_size = 1, slices = 2 }
rival = "Head"
"""
ROWS = {
    "Head": "head",
    "Full": "full",
    "Scratch": "scratch",
    "Adapter": "adapter",
    "ST-Adapter": "st_adapter",
    "Med-Tuning": "med_tuning",
}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A sweep called brain in a folder of recipes of its own; none of its trainings is there yet."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    rows = (
        f'[[row]]\nname = "{name}"\nmethod = {{ {key} = {{}} }}\nlr = [1e-3]\n' for name, key in ROWS.items()
    )
    threshold = '[[row]]\nname = "threshold"\nmethod = { threshold = {} }\n'
    (recipes / "brain.toml").write_text(RECIPE + threshold + "".join(rows))
    monkeypatch.setattr(recipe, "RECIPES", recipes)
    return store.results("brain", tmp_path / "results")


def pretend(asked, dices: dict[str, float], validation: float = 0.5) -> None:
    """Both seeds of these rows: three patients around a Dice, the second seed a hundredth better."""
    for name, dice in dices.items():
        row = asked.sweep.row(name)
        for seed in asked.sweep.seeds:
            values = [dice + seed / 100 + step for step in (-0.1, 0, 0.1)]
            test = {score: dict.fromkeys(("ET", "WT", "TC"), values) for score in SCORES}
            result = dict(
                tuned=1000, inserted=10, validation=validation, test=test, patients=["a", "b", "c"], took={}
            )
            asked.add(row, row.rates[0], seed, result)


def test_without_trainings_the_page_says_what_makes_them(asked):
    assert report.findings(asked) == ["0 of 7 rows are there (`labkit sweep brain`)."]
    body, text = report.of_sweep(asked)
    assert "<code>labkit sweep brain</code> makes them" in body and "`labkit sweep brain` makes them" in text
    assert "Which &lt;is&gt; better?" in body and "<img" not in body


def test_findings_tell_more_from_less_and_from_what_is_not_known(asked):
    pretend(asked, {"Head": 0.5, "Full": 0.6, "Adapter": 0.65, "Med-Tuning": 0.7})
    pretend(asked, {"ST-Adapter": 0.7}, validation=0.6)  # the best other on validation patients
    said = " ".join(report.findings(asked))
    assert "Med-Tuning is above Full: +10.0 points of Dice, 95 % interval 10.0 to 10.0" in said
    assert "Med-Tuning is not told apart from ST-Adapter: +0.0" in said
    rank = float(re.search(r"Spearman\): (-?\d[.]\d+)", said)[1])
    assert 0.9 < rank < 1, "the paper has the same order, but no tie"
    assert "Scratch" not in said, "nothing is said of rows that are not there"
    pretend(asked, {"Scratch": 0.5})
    assert "Full is above Scratch: +10.0 points of lesion-wise Dice" in " ".join(report.findings(asked))
    pretend(asked, {"Med-Tuning": 0.4})
    assert "Med-Tuning is below Full: -20.0 points" in " ".join(report.findings(asked))


def test_the_papers_numbers_stand_beside_ours(asked):
    pretend(asked, {"Full": 0.6})
    rows = {row["method"]: row for row in report.beside(asked)}
    assert rows["Full"]["ET, paper"] == "68.49" and rows["Full"]["ET, ours"] == "60.5"
    assert rows["Med-Tuning"]["TC, paper"] == "79.35" and not rows["Med-Tuning"].get("TC, ours")


def test_the_page_is_one_file_and_its_figures_have_words(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(deltas, "DELTAS", {"volumes-head": deltas.DELTAS["volumes-head"]})
    pretend(asked, {"Head": 0.5, "Med-Tuning": 0.7})
    report.report(tmp_path / "out", asked.path.parent)
    page = (tmp_path / "out" / "index.html").read_text()
    sources = re.findall(r'<img alt="([^"]*)" src="([^"]{20})', page)
    assert len(sources) == 4, "dots, scatter, memory, a slice by every method"
    assert all(alt and source.startswith("data:image/png") for alt, source in sources)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("<figcaption>") == page.count("Made by <code>labkit ") == 4
    table = (tmp_path / "out" / "tables.md").read_text()
    assert "| Med-Tuning | 1,000 | 0.001 | 70.5 | 70.5 | 70.5 | 70.5 (" in table
    assert "| 2 | +20.0 (20.0 to 20.0) Head |" in table
