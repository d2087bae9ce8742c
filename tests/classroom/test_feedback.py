"""Pages for students and for the instructor: mistakes by name, everything else as harmless text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zipfile
from html.parser import HTMLParser

import numpy as np
import pytest

from labkit.classroom import canvas, class_page, demo_class, feedback, misconceptions, pages
from labkit.classroom.downloads import collect
from labkit.grading import intake, transplant
from labkit.grading.bench import seeds
from labkit.grading.evidence import judge, score, varies
from labkit.grading.release import load
from labkit.lessons import exercises

EVIL = (
    '"><script>alert(1)</script><img src=x onerror=alert(2)> \x1b[31mred\x1b[0m [a](javascript:x) \u202e=1+1'
)
TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "section", "h1", "h2", "p", "strong"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "rect"),
}
ATTRIBUTES = {
    *(
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "scope",
        "class",
        "colspan",
        "aria-hidden",
        "viewbox",
    ),
    *("xmlns", "x", "y", "width", "height", "fill", "stroke"),
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "class"
    demo_class.demo_class(folder)
    return folder


@pytest.fixture(scope="module")
def release(demo):
    return load(demo / "release")


def judged(release, student, answers):
    """A line as the grader writes it, for answers of ours that run here; reference where none is given."""
    setup = {"release": release.id, "lab": release.lab, "key": release.key}
    line = {"student": student, "lab": release.lab, "release": release.id, "status": "graded"}
    line |= {"reason": "", "flags": [], "points": 6.0, "exercises": {}}
    for name, exercise in exercises(release.lab).items():
        given = answers.get(name, exercise.reference)
        if isinstance(given, str):
            space = {"np": np}
            exec(given, space)
            given = space[name]
        points = release.exercises[name]["points"]
        found = judge(exercise, misconceptions.Here(given), seeds(setup, name, student), varies(exercise))
        line["exercises"][name] = {
            **{
                "status": "graded",
                "score": score(found, points),
                "points": points,
                "reason": "",
                "flags": [],
            },
            "marks": [{"name": m.name, "holds": m.holds, "reason": m.reason} for m in found],
        }
    line["score"] = sum(about["score"] for about in line["exercises"].values())
    return line


@pytest.fixture(scope="module")
def lines(release):
    wanted = {name: demo_class.HAND_INS[name] for name in ("student01", "student05", "student06")}
    wanted |= {name: demo_class.HAND_INS[name] for name in ("student07", "student08")}
    odd = "def dice(prediction, truth):\n    return 0.123"
    wanted |= {"student21": {"dice": odd}, "student22": {"dice": odd}}
    wanted |= {"student23": {"dice": "def dice(p, t):\n    raise ValueError('I am student23')"}}
    return [judged(release, name, answers) for name, answers in wanted.items()]


@pytest.fixture(scope="module")
def named(release, lines):
    return misconceptions.named(release, lines)


def test_mistakes_get_their_names_from_what_the_grader_wrote_down(named):
    assert (
        "Jaccard" in named["student05", "dice"] and named["student06", "dice"] == named["student05", "dice"]
    )
    assert "cubic millimetres" in named["student06", "tumour_ml"]
    assert "factor 2 is missing" in named["student07", "dice"]
    assert "single label" in named["student07", "regions"]
    assert "Two empty masks give 0 (" in named["student08", "dice"]
    assert "You counted voxels" in named["student08", "tumour_ml"]
    assert not {"student01", "student21", "student22", "student23"} & {student for student, _ in named}


def test_every_named_mistake_of_the_lab_is_recognised_as_itself_or_its_like(release):
    known = exercises(release.lab)["dice"].mistakes
    lines = [judged(release, str(number), {"dice": one.code}) for number, one in enumerate(known)]
    found = misconceptions.named(release, lines)
    assert [found[line["student"], "dice"] for line in lines] == [one.says for one in known]


def test_marks_of_another_release_get_no_name(release, lines):
    assert not misconceptions.named(release, [{**line, "release": "another"} for line in lines])


class Reader(HTMLParser):
    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.meta, self.said, self.style, self.inside = set(), [], {}, "", "", ""
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.inside = tag
        self.tags.add(tag)
        self.attributes += attributes
        if tag == "meta" and "http-equiv" in dict(attributes):
            self.meta |= {dict(attributes)["http-equiv"]: dict(attributes)["content"]}

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "style":
            self.style += data
        else:
            self.said += data


def harmless(content):
    """The page's text, once it is sure that nothing in it can run, load, lead away or move a cursor."""
    page = Reader(content)
    assert page.tags <= TAGS and {name for name, _ in page.attributes} <= ATTRIBUTES
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", content)
    policy = page.meta["Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(pages.STYLE.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy and page.style == pages.STYLE and "url(" not in page.style
    assert not re.search(r"(?<!-)color:|background", page.style), "meaning or legibility by colour"
    return page.said


def evil_line():
    mark = {"name": f"is right on {EVIL}", "holds": False, "reason": EVIL}
    about = {
        "status": "graded",
        "score": 0.0,
        "points": 3.0,
        "reason": EVIL,
        "flags": [EVIL],
        "marks": [mark],
    }
    return {
        **{"student": EVIL, "lab": EVIL, "release": "r", "status": "graded", "reason": EVIL, "flags": [EVIL]},
        **{"score": 0.0, "points": 6.0, "exercises": {EVIL: about}},
    }


def test_whatever_a_student_writes_is_text_on_every_page():
    lines = [
        evil_line(),
        {**evil_line(), "student": "b"},
        {**evil_line(), "status": "rejected", "exercises": {}},
    ]
    shown = {EVIL: {f"is right on {EVIL}"}}
    for name in ({}, {(EVIL, EVIL): EVIL}):
        said = harmless(feedback.student_page(lines[0], name, shown))
        assert said.count("<script>alert(1)</script>") >= 5
        assert "<script>alert(1)</script>" in harmless(class_page.class_page(lines, name))


def test_a_student_reads_points_verdicts_and_the_mistake_in_words(release, lines, named, tmp_path):
    written = feedback.write(lines, named, feedback.shown(release.lab), tmp_path)
    assert [path.name for path in written] == [f"{line['student']}.html" for line in lines]
    said = harmless((tmp_path / "student06.html").read_text(encoding="utf-8"))
    assert "Looks like: You divided by the union" in said and "Not right yet." in said and "Right." in said
    assert "expected" in said and "yes" in said and "NO" in said
    assert "Looks like" not in harmless((tmp_path / "student01.html").read_text(encoding="utf-8"))
    said = harmless((tmp_path / "student23.html").read_text(encoding="utf-8"))
    assert said.count("I am student23") == 1 and said.count("as above") > 1, "the same error, said once"


def test_a_hidden_check_is_counted_and_not_described():
    line = evil_line()
    said = harmless(feedback.student_page(line, {}, {}))
    assert "a check that is not in your notebook" in said and said.count("is right on") == 0


def test_the_class_page_has_no_names_and_says_every_outcome_in_full_beside_its_bar(lines, named):
    content = class_page.class_page(lines, named)
    said = harmless(content)
    assert not re.search(r"student\d\d", content)
    assert "expected" in said and "0.123" in said, "a wrong answer that two students share is shown"
    for name in ("regions", "dice", "tumour_ml"):
        found = class_page.outcomes(name, lines, named)
        assert sum(count for _, count in found) == len(lines)
        part = content[content.index(f"<h2>{name}</h2>") :]
        rows = re.findall(r'<tr><td>(.+)</td><td class="bar">.+ width="([\d.]+)" .+>(\d+)</td></tr>', part)
        width = 198 / len(lines)
        assert rows[: len(found)] == [
            (pages.text(label), f"{count * width:.1f}", str(count)) for label, count in found
        ]


def test_who_is_alone_with_a_wrong_answer_is_not_shown(lines):
    assert class_page.wrong_answers("dice", lines[-3:], {})[0][2] == 2
    assert len(class_page.wrong_answers("dice", lines[-3:], {})) == 1


def test_the_demo_class_is_twelve_hand_ins_that_intake_takes(demo, release, tmp_path):
    found = collect(demo / "submissions.zip", tmp_path / "hand-ins")
    kept = [one for one in found if one.kept]
    assert len(kept) == 12 and [one.entry.name for one in found if not one.kept] == [
        "student05_9005_505_00_welcome.ipynb"
    ]
    assert {one.name for one in kept if one.late == "yes"} == set(demo_class.LATE)
    with zipfile.ZipFile(demo / "submissions.zip") as archive:
        assert archive.testzip() is None
    import nbformat

    edition = nbformat.reads(release.student, as_version=4)
    attempts = {}
    for one in intake.collect(tmp_path / "hand-ins"):
        try:
            given = transplant.answers(intake.read(one), edition)
            attempts[one.student[:9]] = sum(
                transplant.attempted(answer, edition) for answer in given.values()
            )
        except intake.Rejected:
            attempts[one.student[:9]] = -1
    assert attempts == dict.fromkeys(demo_class.HAND_INS, 3) | {
        "student03": 1,
        "student04": 0,
        "student12": -1,
    }
    with pytest.raises(ValueError, match="holds something already"):
        demo_class.demo_class(demo)


def test_the_demo_gradebook_takes_the_demo_marks(demo, lines):
    numbers = {name: 9000 + n for n, name in enumerate(demo_class.HAND_INS, start=1)}
    marks = [{**line, "student": f"{line['student']}_{numbers[line['student']]}"} for line in lines[:5]]
    merged, said = canvas.merge((demo / "gradebook.csv").read_bytes(), marks, "Lab 00")
    assert b",student01,A,6,\r\n" in merged and len([one for one in said if "no hand-in" in one]) == 8
    assert json.dumps(said).isascii()


def with_reason(student, reason):
    line = evil_line()
    line["exercises"][EVIL]["marks"][0]["reason"] = reason
    return {**line, "student": student}


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("ValueError: the exam is on Friday, https://evil.example/login", "it raised ValueError"),
        ("Exam: it is on Friday", class_page.OTHER),
        ("print: the exam is on Friday", class_page.OTHER),
        ("expected 1, got 'the exam is on Friday'. ", class_page.OTHER),
        ("expected 1, got 1the 2exam 3is 4on 5Friday", class_page.OTHER),
        ("expected 1, got \u2620 \u2192", class_page.OTHER),
        ("expected 1, got 0.123.", "expected 1, got 0.123."),
        ("expected -1.5e-05, got 2e10j", "expected -1.5e-05, got 2e10j"),
        ("expected a plain number, got a tensor.", "expected a plain number, got a tensor."),
        (
            "expected tensor of shape (2, 3), torch.float32, from 0 to 1, sum 2, got array([nan, inf]).",
            "expected tensor of shape (2, 3), torch.float32, from 0 to 1, sum 2, got array([nan, inf]).",
        ),
    ],
)
def test_two_who_agree_cannot_say_anything_on_the_class_page(reason, shown):
    lines = [with_reason(student, reason) for student in "ab"]
    assert class_page.wrong_answers(EVIL, lines, {}) == [(f"It is right on {EVIL}", shown, 2)]
    assert shown in harmless(class_page.class_page(lines, {}))


def test_a_part_with_a_path_for_a_name_is_said_in_the_words_of_the_jail():
    """As the jail says it, so that the mistake is recognised there too."""
    exercise = exercises("04")["inject"]
    wrong = next(one for one in exercise.mistakes if one.code.__name__ == "path_as_a_name")
    marks = judge(exercise, misconceptions.Here(wrong.code), [1, 2, 3], varies(exercise))
    said = [mark.reason for mark in marks if not mark.holds]
    assert any("left its inputs as" in one and "part named 'blocks." in one for one in said), said
