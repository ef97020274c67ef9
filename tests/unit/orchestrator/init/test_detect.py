"""What init makes of a project: its jobs, and what it says that it did not understand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.init import Findings, Job, Tree, detect, write
from orchestrator.init.tree import READ
from tests.unit.orchestrator.init import trees


def jobs(files: dict[str, str]) -> dict[str, Job]:
    return {job.name: job for job in detect(Tree(files)).jobs}


def command(files: dict[str, str], job: str) -> str:
    found = jobs(files)[job].keys["command"]
    assert isinstance(found, str)
    return found


def notes(files: dict[str, str]) -> str:
    return "\n".join(detect(Tree(files)).notes)


def test_a_locked_python_project_is_installed_from_its_lock() -> None:
    """Without the project, so that only these two files count; then what builds it."""
    deps = jobs(trees.LOCKED)["deps"]

    assert ["pyproject.toml", "uv.lock"] == deps.keys["sources"]
    assert "uv sync --frozen" in command(trees.LOCKED, "deps")
    assert "--no-install-project" in command(trees.LOCKED, "deps")
    assert "--group tests" in command(trees.LOCKED, "deps")
    assert "hatchling hatch-vcs" in command(trees.LOCKED, "deps")


def test_a_python_project_s_tests_run_on_the_project_as_it_is() -> None:
    """Installed offline, with a version where one would be taken from git."""
    test = jobs(trees.GROUPED)["test"]

    assert [{"source": {"job": "deps"}, "path": "/venv"}] == test.keys["mounts"]
    assert test.keys["scratch"]
    assert "egress" not in test.keys
    env = test.keys["env"]
    assert isinstance(env, dict)
    assert "0.0.0" == env["SETUPTOOLS_SCM_PRETEND_VERSION"]
    assert "--no-index --no-deps" in command(trees.GROUPED, "test")
    # Where tests start Python with a PYTHONPATH of their own, too.
    assert "sys.path.insert(0, '/tmp/site')" in command(trees.GROUPED, "deps")
    assert "PYTHONPATH" not in env
    assert "python -m pytest --junitxml=/artifacts/junit.xml tests" in command(
        trees.GROUPED, "test"
    )


def test_a_version_comes_from_git_if_there_is_a_commit() -> None:
    """Then nothing pretends one, and a project that does not ask git gets no `.git`."""
    found = detect(Tree(trees.GROUPED, has_commit=True))

    assert found.git
    assert "env" not in found.jobs[-1].keys
    assert "[snapshot]\ngit = true\n" in write(found)
    assert not detect(Tree(trees.GROUPED)).git
    assert not detect(Tree(trees.NPM, has_commit=True)).git


@pytest.mark.parametrize(
    ("files", "wanted", "sources"),
    [
        (trees.GROUPED, "-r pyproject.toml", ["pyproject.toml"]),
        (trees.GROUPED, "--group tests", ["pyproject.toml"]),
        (trees.EXTRAS, "--extra test", ["pyproject.toml"]),
        (trees.SETUP, "'idna>=2'", ["test-requirements.txt", "more.txt"]),
        (trees.SETUP, "PySocks", ["test-requirements.txt", "more.txt"]),
        (trees.SETUP, "-r /tmp/test-requirements.txt", ["test-requirements.txt", "more.txt"]),
        (trees.SETUP, "sed -E", ["test-requirements.txt", "more.txt"]),
        (trees.POETRY, "poetry install --no-root", ["pyproject.toml", "poetry.lock"]),
        (trees.LISTED, "-r requirements.txt", ["requirements.txt"]),
        (trees.LISTED, "pytest", ["requirements.txt"]),
    ],
)
def test_python_dependencies_are_found_where_projects_name_them(
    files: dict[str, str], wanted: str, sources: list[str]
) -> None:
    """And the job sees just the files that name them."""
    assert wanted in command(files, "deps")
    assert sources == jobs(files)["deps"].keys["sources"]


@pytest.mark.parametrize(
    ("extra_file", "text", "wanted"),
    [
        ("requirements-dev.txt", "pytest\n", "-r requirements-dev.txt"),
        ("requirements/tests.txt", "pytest\n", "-r requirements/tests.txt"),
        ("tox.ini", "[testenv]\ndeps = pytest-mock\ncommands = pytest", "pytest-mock"),
        ("tox.ini", "[testenv]\nextras = socks\ndeps = pytest", "--extra socks"),
        ("setup.cfg", "[options.extras_require]\ntesting = pytest-xdist\n", "--extra testing"),
    ],
)
def test_tests_need_what_the_first_place_says(extra_file: str, text: str, wanted: str) -> None:
    """Lists of requirements, tox, extras."""
    files = {"pyproject.toml": '[project]\nname = "it"\n', extra_file: text, "tests/test_a.py": ""}

    assert wanted in command(files, "deps")


def test_pytest_is_installed_once() -> None:
    """Only where nothing else names it."""
    assert command(trees.LISTED, "deps").endswith("-r requirements.txt pytest\n")
    assert " pytest" not in command(trees.GROUPED, "deps").replace("--group tests", "")


def test_computed_python_dependencies_see_the_whole_tree() -> None:
    """They cannot be told from the files, and that is said."""
    assert "sources" not in jobs(trees.COMPUTED)["deps"].keys
    assert "-r setup.py" in command(trees.COMPUTED, "deps")
    assert "computes what it depends on" in notes(trees.COMPUTED)


def test_a_compiled_python_project_has_an_image_with_headers() -> None:
    """For both jobs, as wheels of dependencies may be missing too."""
    assert "python3-dev" in command(trees.COMPILED, "toolchain")
    for job in ("deps", "test"):
        assert {"job": "toolchain"} == jobs(trees.COMPILED)[job].keys["image"]


def test_a_python_project_without_tests_is_compiled() -> None:
    """pytest fails where there are none."""
    files = {"pyproject.toml": '[project]\nname = "it"\n', "it.py": ""}

    assert "compileall" in command(files, "test")
    assert "no files test_*.py" in notes(files)


def test_node() -> None:
    """Packages beside the lock file, found from the workspace; the project's own script."""
    found = jobs(trees.NPM)

    assert ["toolchain", "deps", "test"] == list(found)
    assert ["package.json", "package-lock.json"] == found["deps"].keys["sources"]
    assert "npm ci" in command(trees.NPM, "deps")
    assert [{"source": {"job": "deps"}, "path": "/workspace/node_modules"}] == (
        found["test"].keys["mounts"]
    )
    assert "npm test" == command(trees.NPM, "test")
    assert ["toolchain", "test"] == list(jobs(trees.NPM_ALONE))
    assert "pnpm install --frozen-lockfile" in command(trees.PNPM, "deps")
    assert "npm install --global pnpm" in command(trees.PNPM, "toolchain")


def test_tests_leave_a_report_where_the_tool_is_sure_to_write_one() -> None:
    """pytest, CTest and Node.js do without another package; a script `test` may be anything."""
    script = '{"scripts": {"test": "%s"}}'
    for files in (
        trees.GROUPED,
        trees.CMAKE,
        trees.NPM_ALONE,
        {"package.json": "{}", "test/a.js": ""},
    ):
        test = jobs(files)["test"]
        assert ["junit.xml"] == test.keys["junit"]
        assert "/artifacts/junit.xml" in command(files, "test")
    assert "npm test -- " in command(trees.NPM_ALONE, "test")
    for files in (
        trees.NPM,
        trees.CRATE,
        trees.GO,
        trees.MAKE,
        {"package.json": script % "node --test && echo done"},
        {"package.json": script % "node --test", "yarn.lock": ""},
        {"CMakeLists.txt": "project(it)"},
        {**trees.GROUPED, "pytest.ini": "[pytest]\naddopts = -p no:junitxml\n"},
    ):
        assert "junit" not in jobs(files)["test"].keys
        assert "junit" not in command(files, "test")


def test_jobs_get_packages_from_where_the_host_gets_them() -> None:
    """If its settings say so, and for jobs that get any: the key is refused for others."""
    found = detect(Tree(trees.NPM, host_has_mirrors=True))

    given = {job.name: job.keys.get("host_mirrors") for job in found.jobs}
    assert {"toolchain": True, "deps": True, "test": None} == given
    assert "# host_mirrors: " in write(found)
    assert "host_mirrors" not in write(detect(Tree(trees.NPM)))
    assert "host_mirrors" not in write(detect(Tree(trees.MAKE, host_has_mirrors=True)))


def test_node_without_a_test_is_not_made_up() -> None:
    """npm's own placeholder fails."""
    files = {
        "package.json": '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'
    }

    assert {} == jobs(files)
    assert 'has no script "test"' in notes(files)


def test_rust() -> None:
    """The crates are vendored from the two files, with a stub for each target that cargo checks."""
    found = jobs(trees.CRATE)

    assert ["Cargo.lock", "Cargo.toml"] == found["deps"].keys["sources"]
    assert "touch benches/fast.rs src/lib.rs" in command(trees.CRATE, "deps")
    assert "cargo vendor --locked" in command(trees.CRATE, "deps")
    assert "cargo test --locked --offline" in command(trees.CRATE, "test")
    assert ["toolchain", "test"] == list(jobs(trees.CRATE_ALONE))


def test_go() -> None:
    """Modules from the two files, and a test that asks nobody."""
    found = jobs(trees.GO)

    assert ["go.mod", "go.sum"] == found["deps"].keys["sources"]
    env = found["test"].keys["env"]
    assert isinstance(env, dict)
    assert "off" == env["GOPROXY"]


def test_native() -> None:
    """CMake before a makefile; what it may lack is said."""
    assert ["test"] == list(jobs(trees.CMAKE))
    assert "ctest" in command(trees.CMAKE, "test")
    # Many tests write beside their data.
    assert jobs(trees.CMAKE)["test"].keys["scratch"]
    assert "find_package of Boost:" in notes(trees.CMAKE)
    assert "autoreconf" in command(trees.AUTOTOOLS, "test")
    assert "wants zlib" in notes(trees.AUTOTOOLS)
    assert "make test" in command(trees.MAKE, "test")


def test_several_languages_have_jobs_of_their_own() -> None:
    """Their names begin with the language's, and lead to each other."""
    found = jobs(trees.BOTH)

    assert {"python-deps", "python-test", "nodejs-toolchain", "nodejs-deps", "nodejs-test"} == set(
        found
    )
    assert {"job": "nodejs-toolchain"} == found["nodejs-test"].keys["image"]
    assert [{"source": {"job": "nodejs-deps"}, "path": "/workspace/node_modules"}] == (
        found["nodejs-test"].keys["mounts"]
    )


def test_what_init_does_not_know_is_named() -> None:
    """Nothing is made up for it."""
    assert Findings("", (), ("pom.xml: init does not know Maven",)) == detect(
        Tree({"pom.xml": "", "README.md": ""})
    )


NAMES = st.sampled_from(
    [name.replace("*", "") for name in READ] + ["uv.lock", "tests/test_x.py", "configure"]
)
LINES = st.sampled_from(
    ["[project]", "dependencies = ['x']", "[testenv]", "deps = -rx", "setup(**x)", '{"a": [1]}',
     "[dependency-groups]", "test = 5", "[tool.tox]", "legacy_tox_ini = 7", "[[bin]]", "name = 1",
     "dynamic = ['dependencies']", "scripts = 5", "[tool]", "hatch = 1", "-e .", "require x", "%(a)s"]
)  # fmt: skip
TEXTS = st.one_of(st.text(), st.lists(LINES).map("\n".join))


@given(st.dictionaries(NAMES, TEXTS))
def test_no_tree_crashes_it(files: dict[str, str]) -> None:
    """Whatever is in the files, and whatever they are in place of."""
    detect(Tree(files))


@given(st.text())
def test_no_manifest_crashes_it(text: str) -> None:
    """Nor a single file of any bytes."""
    for name in READ:
        detect(Tree({name.replace("*", "x"): text, "tests/test_x.py": ""}))
