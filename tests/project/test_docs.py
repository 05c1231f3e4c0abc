"""Tests of the documents: their examples work, and the paths and links in them exist."""

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from callbacks import signing
from jobs.api.new_job import NewJob

pytestmark = pytest.mark.stateless

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text()
USAGE = (ROOT / "docs" / "usage.md").read_text()
POSTED = re.compile(r"-d '(\{.*?\n\})'", re.DOTALL)
WHOLE = re.compile(r"Everything a job can have:\n\n```json\n(.*?)```", re.DOTALL)

MODULE = re.compile(r"[\w./-]+\.(?:py|c)\b")
PRODUCT = ("jobs/", "callbacks/", "orchestrator_site/")
COMMANDS = ("docker ", "nft ", "kill ", "python ", "modprobe ", "sysctl ", "ulimit ", "GET ")
ENGINE_MESSAGES = ("no space left on device", "id already in use")
EXAMPLE_TEXTS = (
    "the URL must begin with http:// or https://",
    "does not exist",
    "cannot connect to ",
    ": timed out after ",
    "answered ",
    "interrupted",
    "exit code ",
    "image is for ",
    "no node with ",
    "; the largest has ",
    " ahead",
    "no node has a living worker",
    "pulling ",
    "creating the container",
    "downloading input ",
    "starting",
    "cancelled",
)
OTHER_PATHS = ("CHANGELOG.md", "callbacks.md")  # of earlier releases, and of programs that are shown
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tracked() -> list[str]:
    """Return the files of the repository, and its folders with a slash at the end."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return files + [f"{parent}/" for parent in {parent for file in files for parent in Path(file).parents} if parent.name]


def paths_in(text: str) -> set[str]:
    """Return the modules that a document names, and the folders: words in backquotes that end in a slash."""
    without_programs = re.sub(r"```(?:go|javascript|json|php|python|sh)\n.*?```", "", text, flags=re.DOTALL)
    folders = {word for word in re.findall(r"`([\w./-]+/)`", without_programs) if not word.startswith(("/", ".", "var/"))}
    return set(MODULE.findall(without_programs)) | folders


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name not in OTHER_PATHS], ids=name)
def test_paths_in_the_documents_exist(document: Path) -> None:
    known = [f"/{path}" for path in tracked()]

    missing = {path for path in paths_in(document.read_text()) if not any(one.endswith(f"/{path}") for one in known)}

    assert not missing


def test_the_architecture_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    packages = {Path(path).parent for path in tracked() if path.endswith("/__init__.py")}
    product = {package for package in packages if f"{package}/".startswith(PRODUCT)}
    unmentioned = {"migrations", "management", "commands", "formats", "en"}

    assert {package.name for package in product} - unmentioned <= set(re.findall(r"(\w+)/", text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_changelog_says_nothing_twice() -> None:
    beginnings = [line[:30] for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("- ")]
    assert {beginning for beginning in beginnings if beginnings.count(beginning) > 1} == set()


@pytest.fixture(scope="module")
def printed() -> str:
    """All string constants of the product."""
    modules = [path for path in tracked() if path.endswith(".py") and path.startswith(PRODUCT)]
    constants = [
        node for path in modules for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Constant)
    ]
    return "\n".join(str(constant.value) for constant in constants)


def test_messages_in_the_operations_guide_are_those_of_the_service(printed: str) -> None:
    quoted = re.findall(r"`([a-zA-Z]+ [^`]+)`", (ROOT / "docs" / "operations.md").read_text())
    messages = [text for text in quoted if not text.startswith(COMMANDS) and text not in ENGINE_MESSAGES]

    unknown = [text for text in messages for part in re.split(r"…|\n| +(?=…)", text) if part.strip() not in printed]

    assert len(messages) > 15
    assert not unknown


@pytest.mark.parametrize("text", EXAMPLE_TEXTS)
def test_texts_in_the_examples_are_those_of_the_service(printed: str, text: str) -> None:
    assert text in USAGE
    assert text in printed


def test_decision_records_have_one_form_and_an_index() -> None:
    folder = ROOT / "docs" / "adr"
    index = (folder / "README.md").read_text()

    for record in sorted(folder.glob("0*.md")):
        headings = re.findall(r"^## (.+)$", record.read_text(), re.MULTILINE)
        assert headings[:4] == ["Status", "Context", "Decision", "Consequences"], record.name
        number, title = record.read_text().splitlines()[0].removeprefix("# ").split(". ", 1)
        assert f"| {number} | [{title}]({record.name}) |" in index


def test_every_promise_about_security_names_a_mechanism_and_tests() -> None:
    # Given the tables of promises, which end with the column of their tests
    text = (ROOT / "docs" / "security.md").read_text()
    promises = [row.split(" | ") for row in re.findall(r"^\| (?!promise).+\| .*`tests/.+$", text, re.MULTILINE)]
    tables = re.findall(r"^\| promise \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)

    # I expect each row to name tests, and each test module to have some
    assert len(promises) == sum(table.count("\n") for table in tables) > 30
    for _, mechanism, tests in promises:
        assert mechanism
        for module in re.findall(r"`(\S+)`", tests):
            assert "def test_" in (ROOT / module).read_text(), module


@pytest.mark.parametrize("body", [*POSTED.findall(README), *POSTED.findall(USAGE), *WHOLE.findall(USAGE)])
def test_jobs_that_are_shown_are_accepted(body: str) -> None:
    assert NewJob.read(json.loads(body)).image


def test_the_example_tells_our_signatures_from_others() -> None:
    # Given the example, and a request that is signed
    [example] = [code for code in re.findall(r"```python\n(.*?)```", USAGE, re.DOTALL) if "def is_ours" in code]
    names: dict[str, Any] = {}
    exec(example, names)  # noqa: S102 - of our own documentation
    headers = signing.headers(["whsec_c2VjcmV0"], "id", 1, b"{}")

    # I expect it to take that request, and no other
    assert names["is_ours"]("whsec_c2VjcmV0", b"{}", headers)
    assert not names["is_ours"]("whsec_c2VjcmV0", b"[]", headers)
