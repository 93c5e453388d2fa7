"""Who may import whom, and that each module is as ignorant as its docstring says. Imports are read, not run."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Rooms by floor, the lowest first. A room may import those of its own floor that `BESIDE` names, and all below.
FLOORS = (
    ("pipeline.errors", "pipeline.durable", "pipeline.process"),
    ("pipeline.option", "pipeline.clip"),
    ("pipeline.config",),
    ("pipeline.data",),
    ("pipeline.plan", "pipeline.device"),
    tuple(f"pipeline.{room}" for room in ("text", "engine", "watermark", "checks", "store", "telemetry")),
    ("pipeline.run", "pipeline.dry_run", "pipeline.audit"),
    ("pipeline.benchmark",),
    ("conf", "jobs"),
)  # fmt: skip
BESIDE = {("jobs", "conf")}
TORCH = ("pipeline.engine", "pipeline.device", "pipeline.watermark", "pipeline.benchmark")
# What a docstring's words stand for, where it says "knows nothing of …" or "knows no …". Other words name no module.
WORDS = {
    "engine": ("pipeline.engine",),
    "model": ("pipeline.engine", "chatterbox"),
    "check": ("pipeline.checks",),
    "book": ("pipeline.text",),
    "text rule": ("pipeline.text",),
    "watermark": ("pipeline.watermark",),
    "run": ("pipeline.run",),
    "run folder": ("pipeline.store",),
    "journal": ("pipeline.store.journal",),
    "table": ("pipeline.store.manifest",),
    "retry": ("pipeline.run.retry",),
    "retries": ("pipeline.run.retry",),
    "device": ("pipeline.device",),
    "voice": ("pipeline.clip", "pipeline.engine.chatterbox.voice"),
    "request": ("pipeline.data.Request",),
    "utterance": ("pipeline.data.Utterance",),
    "chapter": ("pipeline.text.Chapter",),
    "sentence": ("pipeline.text.segment.sentences",),
    "thread": ("threading", "concurrent"),
    "hydra": ("hydra", "omegaconf"),
    "w&b": ("wandb",),
    "exit code": ("jobs",),
    "network": ("pipeline.telemetry", "huggingface_hub"),
    "option": ("pipeline.config",),
    "row": ("pipeline.run.row",),
    "file": ("pipeline.durable", "pipeline.store.wav.write_wav"),
    "recording": ("pipeline.clip",),
    "checkpoint": ("pipeline.engine.chatterbox.checkpoint",),
    "waveform": ("pipeline.engine.chatterbox.waveform_stage", "pipeline.engine.chatterbox.s3gen.vocoder"),
    "decoding": ("pipeline.engine.chatterbox.t3.decoder", "pipeline.engine.chatterbox.t3.batch"),
    "slot": ("pipeline.engine.chatterbox.t3.slots",),
    "sampling": ("pipeline.engine.chatterbox.t3.sampler",),
    "flow": ("pipeline.engine.chatterbox.s3gen.flow",),
    "wandb itself": ("wandb",),
    "job": ("jobs",),
    "speech": ("pipeline.data.Speech", "pipeline.engine"),
}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


TREES = {
    name_of(path): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("pipeline", "jobs", "conf")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imports_of(module: str) -> Iterator[str]:
    """Dotted names of all that a module imports, lazily too, but for what only type checkers see."""
    tree = TREES[module]
    unseen = {id(child) for node in ast.walk(tree) if is_type_checking(node) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def room_of(name: str) -> tuple[int, str] | None:
    """Its floor and room; None: not ours."""
    found = [(floor, room) for floor, rooms in enumerate(FLOORS) for room in rooms if is_in(name, room)]
    return found[0] if found else None


@pytest.mark.parametrize("module", [name for name in TREES if name != "pipeline"])
def test_a_module_imports_from_its_own_room_and_from_lower_floors_only(module):
    floor, room = room_of(module)
    for name in imports_of(module):
        there = room_of(name)
        assert there or name.split(".")[0] not in ("pipeline", "jobs", "conf"), f"{name} is in no room"
        assert not there or there[0] < floor or there[1] == room or (room, there[1]) in BESIDE, (
            f"{module} imports {name}"
        )


def test_no_module_imports_itself_in_a_circle():
    graph = {}
    for module in TREES:
        sources = {target for name in imports_of(module) for target in (name, name.rpartition(".")[0])}
        graph[module] = {source for source in sources if source in TREES and source != module and source != "pipeline"}
    list(TopologicalSorter(graph).static_order())  # CycleError names the circle


@pytest.mark.parametrize("module", [name for name in TREES if not name.startswith("jobs")])
def test_only_jobs_know_hydra_and_only_models_know_torch(module):
    for name in imports_of(module):
        assert not name.startswith(("hydra", "omegaconf")), f"{module} imports {name}"
        assert not is_in(name, "torch") or module.startswith(TORCH), f"{module} imports {name}"


def unknown_to(docstring: str) -> Iterator[str]:
    """The words that follow "knows nothing of" or "knows no", in the singular."""
    for said in re.findall(r"\b(?:nothing of|[Kk]nows no) ([^.:;]*)", " ".join(docstring.split())):
        said = re.split(r",? but | of how | that | beside ", said)[0]
        for phrase in re.split(r", |,? or |,? and | nor of | nor ", re.sub(r"\b(?:or|and) no ", "or ", said)):
            phrase = re.sub(r"^(?:of|the|a|an|any|how|what) ", "", phrase.strip()).lower()
            yield phrase.removesuffix("s") if phrase not in ("retries",) else phrase


@pytest.mark.parametrize("module", TREES)
def test_a_module_imports_nothing_that_its_docstring_says_it_does_not_know(module):
    docstring = ast.get_docstring(TREES[module])
    assert docstring, f"{module} does not say what it owns"
    for word in unknown_to(docstring):
        for name in imports_of(module):
            if not any(is_in(module, target) for target in WORDS.get(word, ())):  # a room's own parts are no news
                assert not any(is_in(name, target) for target in WORDS.get(word, ())), (
                    f"{word}: {module} imports {name}"
                )


def test_no_two_classes_share_a_name():
    names = Counter(node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []
