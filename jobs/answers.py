"""What Hydra and OmegaConf refuse, answered in one line: the option, its value, the way out.

Knows nothing of how a job is run.
"""

import difflib
import re
import shlex
from collections.abc import Iterable

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException, UnsupportedInterpolationType

from jobs.catalogue import JOBS, all_options, engines_with, groups_of, kind_of, limits
from pipeline.errors import UserError

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # controls, line ends, broken UTF-8
PLAIN = re.compile(r"[A-Za-z0-9_./:+-]+")  # what neither a shell nor Hydra reads as anything else
QUOTING = "quote a value with = , ( ) spaces or letters outside ASCII, as in \"book='My Book (1).txt'\""


def one_line(error: Exception, schema: type) -> str:
    """An error in one line, with advice for the job that `schema` is of."""
    return UNPRINTABLE.sub(lambda found: repr(found[0])[1:-1], _answer(error, schema))


def _answer(error: Exception, schema: type) -> str:
    if isinstance(error, UserError):
        return str(error)
    text = str(error).strip() or type(error).__name__
    first, second = [*text.splitlines(), ""][:2]
    if isinstance(error, OverrideParseException):
        return _answer_unreadable(error.override)
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        return _answer_choice(error.missing_cfg_file, error.options or ())
    if isinstance(error, InterpolationKeyError | UnsupportedInterpolationType):
        return _answer_reference(error, first)
    if found := re.match(r"Ambiguous value for argument '(.+)'", first):
        return _answer_several(found[1], schema)
    if found := re.match(r"Could not override '([^']+)'", first):
        within = re.match(r"Key '(.+)' not in ", str(error.__cause__)) if _below(found[1], schema) else None
        return no_such_option(f"{found[1]}.{within[1]}" if within else found[1], schema)
    if found := re.match(r"Error merging override (.+)", first):
        return _answer_value(found[1], str(error.__cause__ or "wrong value").strip().splitlines()[0], schema)
    if found := re.match(r"In '(.+)': \w+ raised while composing config:", first):
        return f"{found[1]}.yaml: {_answer_key(second, schema)}"
    if found := re.match(r"(\w+) appears more than once in the final defaults list", first):
        return f"{found[1]} is chosen twice; write {found[1]}=NAME once, without +"
    if mark := getattr(error, "problem_mark", None):  # of a YAML error
        return f"{mark.name}, line {mark.line + 1}: not YAML: {error.problem}"
    if isinstance(error, OmegaConfBaseException) and error.full_key:
        return f"{error.full_key}: {first}"
    return f"{first} {second}" if first.endswith(":") else first


def _answer_unreadable(override: str) -> str:
    name, _, value = (part.strip() for part in override.partition("="))
    meant = value.strip(" ='\"")
    if value.startswith("~/"):
        return f"{override}: ~ is not replaced here; write {name}=$HOME{value[1:]}"
    if re.fullmatch(r"[\w.]+", name) and meant and not UNPRINTABLE.search(meant):
        way_out = "write" if PLAIN.fullmatch(meant) else "quote a value as in"
        return f"cannot read the option {override}; {way_out} {spelled(name, meant)}"
    return f"cannot read the option {override}; {QUOTING}"


def _answer_several(override: str, schema: type) -> str:
    name, _, value = override.partition("=")
    field = dict(all_options(schema)).get(name)
    text = f"; for one value write {spelled(name, value)}" if field and kind_of(field) == "a text" else ""
    return f"{override} is several values; a sweep wants --multirun{text}"


def spelled(name: str, value: str) -> str:
    """What to type into a shell so that the option has exactly this value."""
    if PLAIN.fullmatch(value):
        return f"{name}={value}"
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if not re.search(r"""['"\\$`!]""", text):
        return f"\"{name}='{text}'\""
    text = re.sub(r'(\\*)(")', r"\1\1\\\2", text)
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return shlex.quote(f'{name}="{text}"')


def _answer_choice(missing: str, there: Iterable[str]) -> str:
    group, name = re.fullmatch(r"((?:hydra/)?[^/]+)/(.*)", missing, re.DOTALL).groups()
    known = ", ".join(one for one in there if not one.endswith("_schema"))
    line = f"{group}={name}: no such choice" + (f"; one of {known}" if known else "")
    a_recording = group == "voice" and "." in name and not name.endswith(".yaml")
    return line + (f"; a recording is {spelled('voice.path', name)}" if a_recording else "")


def _answer_reference(error: OmegaConfBaseException, first: str) -> str:
    value = error.parent_node._get_node(error.key)._value() if error.parent_node is not None else None
    if not isinstance(value, str):
        return f"{error.full_key}: {first}"
    escaped = spelled(str(error.full_key), value)
    return f"{error.full_key}={value}: {first}; for the characters themselves write {escaped}"


def _answer_value(override: str, cause: str, schema: type) -> str:
    name, _, value = override.partition("=")
    name = name.lstrip("+")
    field = dict(all_options(schema)).get(name)
    if field and value == "":
        return f"{name}= has no value; give one, or leave the option out"
    if field and value != "null":
        example = f"; write {spelled(name, value)}" if kind_of(field) == "a text" else ""
        return f"{name}={value} is not {kind_of(field)}{limits(field)}{example}"
    if below := _below(name, schema):
        return f"{name}={value}: {name} is a group of options: {below}"
    return f"{override}: {cause}"


def _answer_key(message: str, schema: type) -> str:
    found = re.match(r"Key '(.+)' not in '", message)
    return f"there is no option {found[1]}; --help lists all" if found else message


def no_such_option(name: str, schema: type) -> str:
    """What to say of an option that the job, with the engine chosen, does not have."""
    own = known_names(schema)
    others = [f"jobs.{job}" for job, other in JOBS.items() if name in known_names(other)]
    if name in own and (engines := engines_with(name)):
        return f"the option {name} belongs to engine={' or '.join(engines)}, not to the engine chosen"
    if below := _below(name, schema):
        return f"there is no option {name}; there is {below}"
    if others:
        return f"the option {name} belongs to {' and '.join(others)}, not to this job; --help lists this one's"
    near = nearest(name, own)
    return f"there is no option {name}" + (f"; did you mean {near}?" if near else "; --help lists all")


def known_names(schema: type) -> list[str]:
    """What may stand before a `=`: the options of a job and its groups of named choices."""
    return [*groups_of(schema), *(option for option, _ in all_options(schema))]


def nearest(name: str, known: list[str]) -> str:
    """The name that was probably meant; empty: none is near."""
    plain = {one.lower(): one for one in known}
    return next((plain[one] for one in difflib.get_close_matches(name.lower(), plain, n=1)), "")


def _below(name: str, schema: type) -> str:
    return ", ".join(option for option, _ in all_options(schema) if option.startswith(f"{name}."))
