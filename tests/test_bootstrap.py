"""lab.py for real, in a small stand-in project: its lock is one tiny package, served from a folder."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

LAB = Path(__file__).parents[1] / "lab.py"

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "labkit"
version = "0.1.0"
"""

BACKEND = """
import zipfile, pathlib

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "labkit-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        wheel.writestr("labkit.pth", str(pathlib.Path.cwd()))
        for file, lines in {
            "METADATA": ("Metadata-Version: 2.1", "Name: labkit", "Version: 0.1.0"),
            "WHEEL": ("Wheel-Version: 1.0", "Root-Is-Purelib: true", "Tag: py3-none-any"),
            "RECORD": (),
        }.items():
            wheel.writestr(f"labkit-0.1.0.dist-info/{file}", "".join(line + "\\n" for line in lines))
    return name
"""


def make_wheel(folder, version):
    info = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", f"version = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def make_project(root):
    (root / "labkit").mkdir(parents=True)
    (root / "wheels").mkdir()
    for version in ("1.0", "1.1"):
        make_wheel(root / "wheels", version)
    shutil.copy(LAB, root)
    (root / "requirements.lock").write_text("# one small package\ntiny==1.0\n")
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    (root / "labkit" / "__init__.py").touch()
    (root / "labkit" / "__main__.py").write_text(
        "import sys, tiny\nprint('labkit', *sys.argv[1:], tiny.version)\n"
    )
    return root


def settings(root, **more):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "UV_"))}
    clean["UV_CACHE_DIR"] = str(root / "uv-cache")
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(root / "wheels")}
    return {**clean, **offline, **more}


def lab(root, *arguments, **more):
    return subprocess.run(
        [sys.executable, root / "lab.py", *arguments],
        capture_output=True,
        text=True,
        cwd=root.parent,
        env=settings(root, **more),
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project after its first start, and what that start printed; not to be changed."""
    root = make_project(tmp_path_factory.mktemp("finished") / "project")
    return root, lab(root, "run", "02")


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, to be broken."""
    return Path(shutil.copytree(finished[0], tmp_path / "project", symlinks=True))


@pytest.fixture(scope="module")
def lab_module():
    spec = importlib.util.spec_from_file_location("lab", LAB)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stamp(root):
    return root / ".venv" / "labkit-is-set-up"


def test_the_first_start_sets_up_and_hands_over_to_labkit(finished):
    root, first = finished
    assert first.returncode == 0, first.stderr
    assert "Setting up" in first.stdout
    assert first.stdout.splitlines()[-1] == "labkit run 02 1.0"
    assert stamp(root).is_file()


def test_a_second_start_installs_nothing(finished):
    root, _ = finished
    before = stamp(root).stat().st_mtime_ns
    second = lab(root, "--no-browser", "--port", "9000", PIP_FIND_LINKS="nowhere")
    assert second.stdout == "labkit start --no-browser --port 9000 1.0\n"
    assert stamp(root).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "arguments, status, said",
    [
        (["--help"], 0, "python3 lab.py run 02"),
        (["tset"], 2, "no command 'tset'"),
        (["--prot", "9000"], 2, "--prot"),
        (["--port", "many"], 2, "many"),
    ],
)
def test_help_and_mistakes_answer_before_any_set_up(tmp_path, arguments, status, said):
    root = make_project(tmp_path / "project")
    answer = lab(root, *arguments)
    assert answer.returncode == status
    assert said in answer.stdout + answer.stderr
    assert not (root / ".venv").exists()


@pytest.mark.parametrize(
    "version, old", [((3, 6, 15), True), ((3, 9, 18), True), ((3, 10, 0), False), ((3, 13, 0), False)]
)
def test_only_a_python_below_3_10_is_refused_in_one_sentence(lab_module, version, old):
    sentence = lab_module.complaint(version)
    assert bool(sentence) == old
    if old:
        assert "3.10" in sentence and f"3.{version[1]}:" in sentence and "\n" not in sentence


def test_a_killed_set_up_heals(tmp_path):
    root = make_project(tmp_path / "project")
    process = subprocess.Popen(
        [sys.executable, root / "lab.py", "run", "02"],
        env=settings(root),
        text=True,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert "Setting up" in process.stdout.readline()
    time.sleep(0.5)  # somewhere inside the making of .venv
    process.kill() if os.name == "nt" else os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not stamp(root).exists()
    again = lab(root, "run", "02")
    assert again.stdout.splitlines()[-1] == "labkit run 02 1.0", again.stderr


@pytest.mark.slow  # by pip; by uv, which is used where it can be, below
def test_a_half_written_package_is_installed_again(project):
    site = next((project / ".venv").glob("[Ll]ib/**/site-packages"))
    (site / "tiny.py").unlink()
    (site / "tiny-1.0.dist-info" / "INSTALLER").unlink()  # pip writes this after the package's own files
    stamp(project).unlink()
    assert lab(project, "run", "02").stdout.splitlines()[-1] == "labkit run 02 1.0"


def test_a_broken_venv_is_made_again_and_the_workbook_kept(project):
    (project / "workbook").mkdir()
    (project / "workbook" / "00_mine.ipynb").write_text("my work")
    for python in (project / ".venv").glob("[bS][ic]*/python*"):
        python.unlink()
    assert lab(project, "run", "02").stdout.splitlines()[-1] == "labkit run 02 1.0"
    assert (project / "workbook" / "00_mine.ipynb").read_text() == "my work"


@pytest.mark.slow  # by pip
def test_a_changed_lock_is_installed_at_the_next_start(project):
    lab(project, "run", "02")  # the copy is a finished set-up of its own
    (project / "requirements.lock").write_text("tiny==1.1\n")
    assert lab(project, "run", "02").stdout.splitlines()[-1] == "labkit run 02 1.1"


def test_a_failed_install_names_the_package_and_the_next_start_can_succeed(project):
    (project / "requirements.lock").write_text("tiny==1.0\nno-such-package==3.2\n")
    failed = lab(project, "run", "02")
    assert failed.returncode == 1
    assert "no-such-package==3.2 was not found for Python" in failed.stderr
    assert "Traceback" not in failed.stderr and not stamp(project).exists()
    (project / "requirements.lock").write_text("tiny==1.0\n")
    assert lab(project, "run", "02").returncode == 0


def test_without_a_connection_the_cure_is_to_connect(project):
    (project / "requirements.lock").write_text("elsewhere==1.0\n")
    failed = lab(
        project, "run", "02", PIP_NO_INDEX="0", PIP_RETRIES="1", PIP_INDEX_URL="http://127.0.0.1:9/simple"
    )
    assert failed.returncode == 1
    assert "no connection while fetching elsewhere==1.0: connect to the internet" in failed.stderr


@pytest.mark.parametrize(
    "printed, sentence",
    [
        (
            "Installing collected packages: a, b\n"
            "ERROR: Could not install packages due to an OSError: [Errno 28] "
            "No space left on device",
            "the disk is full: make 8 GB free",
        ),
        (
            "Collecting torch==2.14.1\n  Downloading torch.whl (532.3 MB)\npip._vendor.urllib3.exceptions."
            "ReadTimeoutError: HTTPSConnectionPool: Read timed out.",
            "broke off while fetching torch==2.14.1",
        ),
        (
            "Collecting psutil==7.2.2\n  Building wheel for psutil: finished with status 'error'\n"
            "  ERROR: Failed building wheel for psutil",
            "psutil could not be built",
        ),
        (
            "Collecting tqdm\nERROR: Could not install packages: [Errno 13] Permission denied: 'x'",
            "a file of tqdm could not be written",
        ),
        (
            "Collecting tqdm\nERROR: something new",
            "tqdm was not installed; then start again, it continues here.\n(pip: ERROR: something new)",
        ),
    ],
)
def test_what_pip_prints_becomes_a_cause_and_a_cure(lab_module, printed, sentence):
    assert sentence in lab_module.explain(printed)


def test_a_folder_is_filled_and_sets_up_a_computer_without_a_network(project, tmp_path):
    stick = tmp_path / "stick"
    filled = lab(project, "--fill-wheels", stick)
    assert filled.returncode == 0, filled.stdout + filled.stderr
    assert [path.name for path in stick.glob("*.whl")] == ["tiny-1.0-py3-none-any.whl"]
    assert "1 packages" in filled.stdout
    shutil.rmtree(project / ".venv")
    shutil.rmtree(project / "wheels")
    done = lab(project, "--wheels", stick, "table", PIP_FIND_LINKS="nowhere")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "labkit table 1.0"


@pytest.mark.slow  # by pip
def test_another_build_of_a_locked_version_is_taken_from_the_folder(project, tmp_path):
    """As a CPU-only torch, called 2.0.0+cpu, for 2.0.0."""
    shutil.rmtree(project / ".venv")
    make_wheel(tmp_path, "1.0+cpu")
    done = lab(project, "--wheels", tmp_path, "table", PIP_FIND_LINKS="nowhere")
    assert done.stdout.splitlines()[-1] == "labkit table 1.0+cpu", done.stdout + done.stderr


# By uv: it is found on the path here, as no index can give its wheel


@pytest.fixture(scope="module")
def uv():
    """The path with uv on it, for `lab`."""
    folder = Path(sysconfig.get_path("scripts"))
    assert list(folder.glob("uv*")), "uv is one of the test packages"
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def installer(root):
    return next((root / ".venv").glob("[Ll]ib/**/tiny-*.dist-info/INSTALLER")).read_text().strip()


def test_uv_installs_where_there_is_one_and_pip_where_there_is_none(finished, tmp_path, uv):
    assert installer(finished[0]) == "pip"
    root = make_project(tmp_path / "project")
    first = lab(root, "run", "02", **uv)
    assert first.stdout.splitlines()[-1] == "labkit run 02 1.0", first.stdout + first.stderr
    assert installer(root) == "uv" and "installed 1 package" in first.stdout


def test_by_uv_a_half_written_package_and_a_changed_lock_are_installed(project, uv):
    site = next((project / ".venv").glob("[Ll]ib/**/site-packages"))
    (site / "tiny.py").unlink()
    (site / "tiny-1.0.dist-info" / "INSTALLER").unlink()
    stamp(project).unlink()
    assert lab(project, "run", "02", **uv).stdout.splitlines()[-1] == "labkit run 02 1.0"
    (project / "requirements.lock").write_text("tiny==1.1\n")
    assert lab(project, "run", "02", **uv).stdout.splitlines()[-1] == "labkit run 02 1.1"
    assert installer(project) == "uv"


def test_by_uv_another_build_of_a_locked_version_is_taken_from_the_folder(project, tmp_path, uv):
    shutil.rmtree(project / ".venv")
    make_wheel(tmp_path, "1.0+cpu")
    done = lab(project, "--wheels", tmp_path, "table", PIP_FIND_LINKS="nowhere", **uv)
    assert done.stdout.splitlines()[-1] == "labkit table 1.0+cpu", done.stdout + done.stderr
    assert installer(project) == "uv"


def test_what_uv_cannot_install_is_explained_as_before(project, uv):
    (project / "requirements.lock").write_text("tiny==1.0\nno-such-package==3.2\n")
    failed = lab(project, "run", "02", **uv)
    assert failed.returncode == 1 and "no-such-package==3.2 was not found for Python" in failed.stderr
    assert not stamp(project).exists()


def test_uv_looks_where_pip_is_told_to_look(lab_module, tmp_path, monkeypatch):
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://one.example/simple\n"
        "extra-index-url = https://two.example/simple\n  https://three.example/simple\n"
        "cert = /some/where.pem\n"
    )
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_FIND_LINKS", "here there")
    monkeypatch.setattr(lab_module, "PYTHON", sys.executable)
    options, environment = lab_module.settings_of_pip()
    pairs = set(zip(options[::2], options[1::2], strict=True))
    assert {
        ("--default-index", "https://one.example/simple"),
        ("--index", "https://two.example/simple"),
    } < pairs
    assert {("--find-links", "here"), ("--find-links", "there")} < pairs
    assert environment == {"SSL_CERT_FILE": "/some/where.pem"}


@pytest.mark.parametrize(
    "arguments, said",
    [(["--wheels", "labkit"], "holds no packages"), (["--no-browser", "--wheels", "labkit"], "comes first")],
)
def test_a_folder_without_packages_or_in_the_wrong_place_is_refused_before_any_set_up(
    tmp_path, arguments, said
):
    root = make_project(tmp_path / "project")
    answer = lab(root, *arguments)
    assert answer.returncode == 2 and said in answer.stderr
    assert not (root / ".venv").exists()
