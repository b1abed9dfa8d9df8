"""The configuration: what each layer may say, which one wins, and what is refused with which words."""

import dataclasses
import inspect
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kqueue import KQueue
from kqueue.config import configuration, layers
from kqueue.config.configuration import Configuration, load
from kqueue.config.keys import LIMITS, OPTIONS, QUEUE, WORKER, Key, nearest
from kqueue.model import tubes
from kqueue.model.options import CHECKS
from kqueue.model.retry import exponential, growing
from kqueue.stores.memory.store import MemoryStore
from kqueue.worker.options import WorkerOptions

#: Of each key of queue and worker that is a number: values that it takes.
NUMBERS = {
    "retry_delay": st.integers(0, 10**6),
    "max_tries": st.integers(1, 10**6),
    "max_crashes": st.integers(1, 10**6),
    "sweep_interval": st.integers(1, 10**6),
    "settle_ms": st.integers(0, 10**6),
    "max_payload": st.integers(0, 10**6),
    "max_result": st.integers(0, 10**6),
    "worker.processes": st.integers(1, 100),
    "worker.threads": st.integers(1, 100),
    "worker.grace": st.integers(0, 10**6),
    "worker.max_jobs": st.integers(1, 10**6),
    "worker.max_rss": st.integers(1, 10**6),
}
TYPE = (*OPTIONS, *LIMITS)
DEFAULTS = {setting.key: setting.value for setting in layers.of_defaults().values()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; nothing is configured in the environment."""
    monkeypatch.chdir(tmp_path)
    for variable in configuration.os.environ:
        if variable.startswith("KQUEUE_"):
            monkeypatch.delenv(variable)
    return tmp_path


def of_file(text: str) -> dict[str, Any]:
    return {setting.key: setting.value for setting in layers.of_file("kqueue.toml", text).values()}


# -- the keys ------------------------------------------------------------------------------------------------


def test_the_queues_keys_and_defaults_are_the_arguments_of_kqueue():
    arguments = inspect.signature(KQueue).parameters
    ours = {key.name: key.default for key in QUEUE}
    for name in arguments.keys() - {"store", "logger"}:
        assert ours[name] == arguments[name].default, name


def test_the_options_of_a_type_are_those_that_a_queue_takes():
    assert {key.name for key in OPTIONS} == CHECKS.keys() - {"retry"}


def test_the_options_of_a_worker_are_its_keys_in_their_order():
    fields = [field.name for field in dataclasses.fields(WorkerOptions)]
    assert fields == [*(key.name for key in WORKER), "folder"]  # which is no option of the command


def test_every_default_passes_its_own_check():
    assert [key.name for key in (*QUEUE, *WORKER) if key.value(key.default) != key.default] == []


def test_no_two_keys_have_the_same_option_or_variable():
    names = [key.name for key in (*QUEUE, *WORKER)]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("worker_")]


@given(st.sampled_from([*QUEUE, *WORKER, *TYPE]), st.data())
def test_the_nearest_of_a_misspelled_key_is_that_key(key: Key, data: st.DataObject):
    table = next(table for table in (QUEUE, WORKER, TYPE) if key in table)
    at = data.draw(st.integers(0, len(key.name) - 1))
    misspelled = data.draw(
        st.sampled_from(
            [
                key.name,
                key.name.upper(),
                key.name.replace("_", "-"),
                key.name[:at] + key.name[at + 1 :],
                key.name[:at] + key.name[at] + key.name[at:],
                key.name[:at] + key.name[at : at + 2][::-1] + key.name[at + 2 :],
            ]
        )
    )
    assert nearest(misspelled, [one.name for one in table]) == key.name


@given(st.text(), st.sets(st.text(st.characters(codec="ascii"), min_size=1), min_size=1))
def test_there_is_always_a_nearest_one(name: str, known: set[str]):
    assert nearest(name, known) in known


# -- the file ------------------------------------------------------------------------------------------------

EXAMPLE = """\
# first
store = "sqlite:///jobs.db"
broker = "beanstalk://127.0.0.1:11300"
max_tries = 5

[worker]
threads = 4
log_level = "DEBUG"
health_file = "none"

[types.resize]
priority = "high"
ttr = 30
running = 2

[types."mail.send"]
priority = 7
max_tries = "none"
"""


def test_a_file_says_what_its_tables_hold():
    assert of_file(EXAMPLE) == {
        "store": "sqlite:///jobs.db",
        "broker": "beanstalk://127.0.0.1:11300",
        "max_tries": 5,
        "worker.threads": 4,
        "worker.log_level": "debug",
        "worker.health_file": None,
        "types.resize.priority": 2**14,
        "types.resize.ttr": 30,
        "types.resize.running": 2,
        "types.mail.send.priority": 7,
        "types.mail.send.max_tries": None,
    }


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("5", growing(5)),
        ("[1, 10.5, 60]", (1.0, 10.5, 60.0)),
        ("{first = 1}", exponential(1)),
        ("{first = 1, factor = 3, most = 600, jitter = 0.1}", exponential(1, 3, most=600, jitter=0.1)),
    ],
)
def test_a_types_retry_delay_is_a_number_a_list_or_a_table(text: str, delay: object):
    assert of_file(f"[types.resize]\nretry_delay = {text}") == {"types.resize.retry_delay": delay}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_source_names_the_line(end: str):
    layer = layers.of_file("kqueue.toml", EXAMPLE.replace("\n", end))
    lines = EXAMPLE.split("\n")
    for key, _, source in layer.values():
        name, line = source.split(":")
        assert name == "kqueue.toml"
        assert lines[int(line) - 1].startswith(f"{key.rpartition('.')[2]} = ")


@pytest.mark.parametrize(
    ("text", "key", "source"),
    [
        ("worker = {threads = 2}", "worker.threads", "kqueue.toml:1"),
        ("# x\nworker.threads = 2", "worker.threads", "kqueue.toml:2"),
        ("[types]\nresize.ttr = 30", "types.resize.ttr", "kqueue.toml:2"),
        ("[types.resize]\nretry_delay = {first = 1}", "types.resize.retry_delay", "kqueue.toml:2"),
        ("[types.resize]\n[types.resize.retry_delay]\nfirst = 1", "types.resize.retry_delay", "kqueue.toml:2"),
        ("[ types . 'resize' ] # x\n\n  ttr = 30", "types.resize.ttr", "kqueue.toml:3"),
        # What goes over several lines has none.
        ('prefix = """\nmine"""', "prefix", "kqueue.toml"),
    ],
)
def test_a_source_names_the_line_wherever_an_entry_stands_on_one(text: str, key: str, source: str):
    assert layers.of_file("kqueue.toml", text)[key].source == source


@given(
    st.permutations(["settle_ms", "retry_delay", "max_crashes"]), st.lists(st.sampled_from(["", "# x = 1", " "]))
)
def test_a_source_names_the_line_in_any_order(keys: list[str], between: list[str]):
    lines = [line for key in keys for line in [*between, f"{key} = 1"]]
    layer = layers.of_file("f", "\n".join(lines))
    assert {source for _, _, source in layer.values()} == {f"f:{lines.index(f'{key} = 1') + 1}" for key in keys}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store = ", "kqueue.toml: is no TOML: Invalid value (at "),
        ("[worker\n", "kqueue.toml: is no TOML: "),
        ("x = " + "[" * 100_000, "kqueue.toml: is no TOML: "),
        ("max_tries = 1\nmax_tries = 2", "kqueue.toml: is no TOML: "),
        ("\nretry_dely = 1", "kqueue.toml:2: retry_dely: there is no such key; the nearest one is retry_delay"),
        ("RETRY_DELAY = 1", "kqueue.toml:1: RETRY_DELAY: there is no such key; the nearest one is retry_delay"),
        ("[worker]\nthread = 1", "kqueue.toml:2: worker.thread: there is no such key; the nearest one is threads"),
        ("[workers]\nthreads = 1", "kqueue.toml:1: workers: there is no such key; the nearest one is worker"),
        (
            "[types.resize]\ntrr = 1",
            "kqueue.toml:2: types.resize.trr: there is no such key; the nearest one is ttr",
        ),
        ("threads = 4", "kqueue.toml:1: threads: there is no such key; threads belongs in [worker]"),
        ("ttr = 4", "kqueue.toml:1: ttr: there is no such key; ttr belongs in [types.NAME]"),
        (
            "[worker]\nstore = 'x'",
            "kqueue.toml:2: worker.store: there is no such key; store belongs at the top of",
        ),
        (
            "[types.mail.send]\nttr = 4",
            "kqueue.toml:1: types.mail.send: there is no such key; a type with a dot in its",
        ),
        ("[types.mail.send]\nttr = 4", 'as in [types."mail.send"]'),
        ('"\\u001b[2J" = 4', "kqueue.toml:1: '\\x1b[2J': there is no such key; the nearest one is"),
        ('"" = 4', "there is no such key; the nearest one is"),
        ("worker = 3", "kqueue.toml:1: worker: expected a table, [worker], got 3"),
        ("types = []", "kqueue.toml:1: types: expected a table, [types], got []"),
        ("[types]\nresize = 3", "kqueue.toml:2: types.resize: expected a table, [types.resize], got 3"),
        ('[types."a\\tb"]\nttr = 3', "kqueue.toml:2: type: printable characters, 1 to 190 bytes"),
        ("retry_delay = 'soon'", "kqueue.toml:1: retry_delay: expected a number, at least 0, got 'soon'"),
        ("retry_delay = '5'", "kqueue.toml:1: retry_delay: expected a number, at least 0, got '5'"),
        ("retry_delay = -1", "kqueue.toml:1: retry_delay: a finite number, at least 0, got -1"),
        ("retry_delay = inf", "kqueue.toml:1: retry_delay: a finite number"),
        ("retry_delay = 'none'", "kqueue.toml:1: retry_delay: expected a number"),
        ("settle_ms = 07:32:00", "kqueue.toml:1: settle_ms: expected a number"),
        ("max_tries = 0", "kqueue.toml:1: max_tries: at least 1, got 0"),
        ("max_tries = 1.5", "kqueue.toml:1: max_tries: expected an integer"),
        ("max_tries = true", "kqueue.toml:1: max_tries: expected an integer"),
        ("prefix = 'much too long'", "kqueue.toml:1: prefix: at most 10 characters"),
        ("store = 'redis://:secret@here'", "kqueue.toml:1: store: expected one of memory:, sqlite:"),
        ("store = 3", "kqueue.toml:1: store: expected a URL"),
        ("[store]\nurl = 'x'", "kqueue.toml:1: store: expected a URL"),
        ("store = 'mongodb://me:secret@here'", "kqueue.toml:1: store: expected mongodb://HOST:PORT/DATABASE"),
        ("broker = 'amqp://here'", "kqueue.toml:1: broker: unknown scheme; expected"),
        ("[worker]\nprocesses = 0", "kqueue.toml:2: processes: at least 1, got 0"),
        ("[worker]\nlog_level = 'loud'", "kqueue.toml:2: log_level: "),
        ("[worker]\nhealth_file = 3", "kqueue.toml:2: health_file: expected a str"),
        ("[types.resize]\npriority = 'asap'", "kqueue.toml:2: priority: one of URGENT"),
        ("[types.resize]\nttr = 0", "kqueue.toml:2: ttr: a finite number, at least 1, got 0"),
        ("[types.resize]\nretry_delay = []", "kqueue.toml:2: retry_delay: a list of seconds has at least one"),
        ("[types.resize]\nretry_delay = [1, 'x']", "kqueue.toml:2: retry_delay: expected a number"),
        (
            "[types.resize]\nretry_delay = {frist = 1}",
            "kqueue.toml:2: retry_delay: no 'frist'; did you mean 'first'?",
        ),
        (
            "[types.resize]\nretry_delay = {most = 1}",
            "retry_delay: a table with first, and perhaps factor, most and",
        ),
        ("[types.resize]\nretry_delay = {first = 2, most = 1}", "most: a finite number, at least 2, got 1"),
        ("[types.resize.retry_delay]\nfirst = 'x'", "kqueue.toml:1: first: expected a number"),
        ("[types.resize]\nrunning = 0", "kqueue.toml:2: running: at least 1, got 0"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_the_line_and_the_key(text: str, said: str):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        layers.of_file("kqueue.toml", text)
    assert len(str(caught.value)) < 400
    assert "secret" not in str(caught.value)


def test_the_current_folders_file_is_read_if_it_is_there(folder: Path):
    assert load().files == ()
    (folder / "kqueue.toml").write_text("max_tries = 5")
    assert load().files == ("kqueue.toml",)
    assert load().setting("max_tries") == ("max_tries", 5, "kqueue.toml:1")


def test_a_named_file_is_read_instead(folder: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ["kqueue.toml", "of_environment.toml", "given.toml"]:
        (folder / name).write_text(f"prefix = '{name[:5]}'")
    monkeypatch.setenv("KQUEUE_CONFIG", "of_environment.toml")
    assert load().setting("prefix") == ("prefix", "of_en", "of_environment.toml:1")
    assert load(folder / "given.toml").setting("prefix") == ("prefix", "given", f"{folder}/given.toml:1")
    monkeypatch.setenv("KQUEUE_CONFIG", "")
    assert load().files == ("kqueue.toml",)


def test_each_environment_has_its_file_and_each_machine_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "kqueue.toml").write_text(
        "max_tries = 1\nretry_delay = 1\nsettle_ms = 1\n[types.a]\nttr = 1\nstarts = 2"
    )
    (folder / "kqueue.production.toml").write_text("retry_delay = 2\nsettle_ms = 2\n[types.a]\nttr = 2\nperiod = 3")
    (folder / "kqueue.local.toml").write_text("settle_ms = 3")
    names = ("max_tries", "retry_delay", "settle_ms", "types.a.ttr")
    with pytest.raises(ValueError, match="KQUEUE_EMV: there is no such key; the nearest one is KQUEUE_ENV"):
        load(environment={"KQUEUE_EMV": "production"})
    assert [load().setting(name).value for name in names] == [1, 1, 3, 1]
    monkeypatch.setenv("KQUEUE_ENV", "production")
    found = load()
    assert found.env == "production"
    assert found.files == ("kqueue.toml", "kqueue.production.toml", "kqueue.local.toml")
    sources = ["kqueue.toml:1", "kqueue.production.toml:1", "kqueue.local.toml:1", "kqueue.production.toml:4"]
    assert [found.setting(name).source for name in names] == sources
    assert found.limits() == {"a": {"starts": 2, "period": 3}}
    monkeypatch.setenv("KQUEUE_SETTLE_MS", "4")
    assert load().setting("settle_ms").source == "environment KQUEUE_SETTLE_MS"
    assert load(options={"store": "memory:"}).setting("store").source == "--store"
    assert load(env="none").files == ("kqueue.toml", "kqueue.local.toml")
    monkeypatch.setenv("KQUEUE_ENV", "")
    assert load().env is None
    assert load(env="production").files == found.files


def test_a_named_file_has_its_own_files_beside_it(folder: Path):
    (folder / "etc").mkdir()
    for name in ("shop.conf", "shop.test-1.conf", "shop.local.conf"):
        (folder / "etc" / name).write_text(f"prefix = '{len(name)}'")
    (folder / "kqueue.local.toml").write_text("prefix = 'not'")
    found = load("etc/shop.conf", env="test-1")
    assert found.files == ("etc/shop.conf", "etc/shop.test-1.conf", "etc/shop.local.conf")
    assert found.setting("prefix") == ("prefix", "15", "etc/shop.local.conf:1")


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("staging", "kqueue.staging.toml: cannot be read: No such file or directory ({} names it)"),
        ("../x", "{}: expected a name of letters, digits, - and _, as in production, got '../x'"),
        ("a" * 61, "{}: expected a name of letters, digits"),
        ("local", "{}: local is no environment: its file is that of one machine, and always read"),
    ],
)
def test_an_environment_that_is_not_there_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, env: str, said: str
):
    with pytest.raises(ValueError, match=re.escape(said.format("--env"))):
        load(env=env)
    monkeypatch.setenv("KQUEUE_ENV", env)
    with pytest.raises(ValueError, match=re.escape(said.format("environment KQUEUE_ENV"))):
        load()
    with pytest.raises(ValueError, match="--env: expected a name"):
        load(env="")


def test_a_period_belongs_to_starts_of_any_file(folder: Path):
    (folder / "kqueue.local.toml").write_text("[types.resize]\nperiod = 1")
    with pytest.raises(
        ValueError, match=r"^kqueue.local.toml:2: period: it is that of starts, which types.resize does"
    ):
        load()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.toml", "missing.toml: cannot be read: No such file"),
        ("a\0b", "cannot be read: embedded null byte"),
        ("here", "here: cannot be read: Is a directory"),
        ("round", "round: cannot be read: Too many levels of symbolic links"),
        ("kqueue.toml/x", "kqueue.toml/x: cannot be read: Not a directory"),
        ("", "config: expected the name of a file"),
        ("/dev/zero", "/dev/zero: has more than 1048576 bytes"),
        ("latin.toml", "latin.toml: is no TOML, which is UTF-8"),
    ],
)
def test_a_named_file_that_cannot_be_read_is_refused(folder: Path, name: str, said: str):
    (folder / "here").mkdir()
    (folder / "round").symlink_to("round")
    (folder / "kqueue.toml").write_text("")
    (folder / "latin.toml").write_bytes("prefix = 'é'".encode("latin-1"))
    with pytest.raises(ValueError, match=re.escape(said)):
        load(name)


def test_a_current_folders_file_that_cannot_be_read_is_refused(folder: Path):
    (folder / "kqueue.toml").mkdir()
    with pytest.raises(ValueError, match=r"kqueue.toml: cannot be read: Is a directory"):
        load()


# -- the environment and the command line --------------------------------------------------------------------


def test_every_key_has_a_variable():
    environment = {f"KQUEUE_{key.replace('.', '_').upper()}": str(10) for key in NUMBERS}
    environment |= {"KQUEUE_STORE": "memory:", "KQUEUE_BROKER": "beanstalk://here", "KQUEUE_PREFIX": "a."}
    environment |= {
        "KQUEUE_CREATE": "false",
        "KQUEUE_DELETE_ON_SUCCESS": "true",
        "KQUEUE_MAX_AGE": "3600",
        "KQUEUE_LOG_PAYLOADS": "true",
        "KQUEUE_WORKER_APP": "a:b",
        "KQUEUE_WORKER_HEALTH_FILE": "h",
        "KQUEUE_WORKER_LOG_LEVEL": "error",
        "KQUEUE_WORKER_LOG_JOBS": "true",
        "KQUEUE_WORKER_TYPES": "mail, resize",
        "KQUEUE_WORKER_EXCEPT_TYPES": "video",
    }
    layer = layers.of_environment(environment)
    assert (layer["worker.types"].value, layer["worker.except_types"].value) == (["mail", "resize"], ["video"])
    assert layer.keys() == DEFAULTS.keys()
    assert {source for _, _, source in layer.values()} == {f"environment {name}" for name in environment}
    assert {layer[key].value for key in NUMBERS} == {10}
    assert layer["log_payloads"].value is True


def test_a_variable_may_say_none_and_an_empty_one_says_nothing():
    layer = layers.of_environment({"KQUEUE_BROKER": "none", "KQUEUE_MAX_TRIES": "none", "KQUEUE_STORE": ""})
    assert {key: setting.value for key, setting in layer.items()} == {"broker": None, "max_tries": None}


def test_variables_of_others_are_left_alone():
    others = {
        "KQUEUE_CONFIG": "x",
        "KQUEUE_SERVICE_HOST": "10.0.0.11",
        "KQUEUE_WORKER_SERVICE_PORT_HTTP": "80",
        "KQUEUE_PORT": "tcp://10.0.0.11:6379",
        "KQUEUE_PORT_6379_TCP_ADDR": "10.0.0.11",
        "kqueue_stroe": "x",
        "OTHER": "x",
    }
    assert layers.of_environment(others) == {}


def test_a_variable_that_is_like_none_of_ours_is_warned_of(caplog: pytest.LogCaptureFixture):
    assert layers.of_environment({"KQUEUE_DEPLOYED_BY": "ansible"}) == {}
    (record,) = caplog.records
    assert record.getMessage() == "environment KQUEUE_DEPLOYED_BY: there is no such key, so it is not heeded"


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("KQUEUE_STROE", "x", "environment KQUEUE_STROE: there is no such key; the nearest one is KQUEUE_STORE"),
        ("KQUEUE_STROE", "", "the nearest one is KQUEUE_STORE"),
        ("KQUEUE_THREADS", "4", "the nearest one is KQUEUE_WORKER_THREADS"),
        ("KQUEUE_CONFG", "4", "the nearest one is KQUEUE_CONFIG"),
        ("KQUEUE_RETRY_DELAY", "soon", "environment KQUEUE_RETRY_DELAY: retry_delay: expected a number"),
        ("KQUEUE_RETRY_DELAY", "nan", "environment KQUEUE_RETRY_DELAY: retry_delay: a finite number"),
        ("KQUEUE_MAX_TRIES", "1.5", "environment KQUEUE_MAX_TRIES: max_tries: expected an integer"),
        ("KQUEUE_LOG_PAYLOADS", "maybe", "log_payloads: expected True or False, got 'maybe'"),
        ("KQUEUE_MAX_TRIES", "0", "environment KQUEUE_MAX_TRIES: max_tries: at least 1, got 0"),
        ("KQUEUE_STORE", "redis://:secret@here", "environment KQUEUE_STORE: store: expected one of memory:"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(variable: str, text: str, said: str):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        layers.of_environment({variable: text})
    assert "secret" not in str(caught.value)


def test_options_are_read_as_texts_or_taken_as_they_are():
    layer = layers.of_options({"threads": 4, "processes": "2", "grace": None, "max_jobs": "none", "broker": ""})
    assert list(layer.values()) == [
        ("worker.threads", 4, "--threads"),
        ("worker.processes", 2, "--processes"),
        ("worker.max_jobs", None, "--max-jobs"),
        ("broker", None, "--broker"),
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"thread": 4}, "thread: there is no such key; the nearest one is threads"),
        ({"threads": 0}, "--threads: at least 1, got 0"),
        ({"max_jobs": "many"}, "--max-jobs: expected an integer"),
        ({"store": ""}, "--store: expected one of memory:"),
    ],
)
def test_a_bad_option_is_refused(options: Mapping[str, object], said: str):
    with pytest.raises((ValueError, TypeError), match=re.escape(said)):
        layers.of_options(options)


# -- which one wins ------------------------------------------------------------------------------------------


def layer_of(keys: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


@given(layer_of(NUMBERS), layer_of(NUMBERS), layer_of(NUMBERS))
def test_the_last_layer_that_has_a_key_wins(in_file: dict[str, int], in_env: dict[str, int], given: dict[str, int]):
    environment = {f"KQUEUE_{key.replace('.', '_').upper()}": str(value) for key, value in in_env.items()}
    options = {key.removeprefix("worker."): value for key, value in given.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "my.toml")
        path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in in_file.items()))
        read = load(path, options, environment)
    for key, value, source in read.settings():
        if key in given:
            expected = given[key], f"--{key.removeprefix('worker.').replace('_', '-')}"
        elif key in in_env:
            expected = in_env[key], f"environment KQUEUE_{key.replace('.', '_').upper()}"
        elif key in in_file:
            expected = in_file[key], f"{path}:{list(in_file).index(key) + 1}"
        else:
            expected = DEFAULTS[key], "default"
        assert (value, source) == expected
    assert read.settings() != []


def test_what_is_overridden_is_checked_all_the_same(folder: Path):
    (folder / "kqueue.toml").write_text("max_tries = 0")
    with pytest.raises(ValueError, match=r"kqueue.toml:1: max_tries"):
        load(None, {}, {"KQUEUE_MAX_TRIES": "5"})


def test_the_workers_options_have_their_defaults_from_the_configuration(folder: Path):
    (folder / "kqueue.toml").write_text("[worker]\nthreads = 4\nprocesses = 2\napp = 'shop:queue'")
    settings = load(None, {"threads": 8, "grace": None}).worker()
    assert (settings["threads"], settings["processes"], settings["grace"]) == (8, 2, 30)
    assert settings["app"] == "shop:queue"
    assert settings.keys() == {key.name for key in WORKER}


# -- what is shown -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "mongodb://me:se%40cret@here:27017/app?w=1&authSource=x",
            "mongodb://me:***@here:27017/app?w=1&authSource=x",
        ),
        ("mongodb://me:secret@one,two/app", "mongodb://me:***@one,two/app"),
        ("sqlite:///jobs.db?synchronous=NORMAL", "sqlite:///jobs.db?synchronous=NORMAL"),
    ],
)
def test_no_password_is_shown(url: str, shown: str):
    setting = layers.of_environment({"KQUEUE_STORE": url})["store"]
    assert (setting.value, configuration.shown(setting)) == (url, shown)


# -- KQueue.from_config --------------------------------------------------------------------------------------


def test_a_queue_of_what_is_configured(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "kqueue.toml").write_text("store = 'sqlite:///jobs.db'\nprefix = 'of_file'\nmax_payload = 10")
    monkeypatch.setenv("KQUEUE_PREFIX", "of_env")
    with KQueue.from_config() as queue:
        assert queue.store.address == f"sqlite:///{folder}/jobs.db"
        assert queue.prefix == tubes.beginning("of_env", queue.store.identity())
        with pytest.raises(ValueError, match="payload: "):
            queue.add_job("resize", "x" * 20)


def test_a_queue_has_the_options_of_its_types(folder: Path):
    (folder / "kqueue.toml").write_text(EXAMPLE + "retry_delay = [5, 10]\n")
    with KQueue.from_config(store="memory:", broker=None) as queue:
        resize, mail = (queue.get_job(queue.add_job(type)) for type in ("resize", "mail.send"))
        assert resize and mail
        assert (resize.priority, resize.ttr) == (2**14, 30)
        assert (mail.priority, mail.ttr) == (7, 60)
        assert queue.get_job(queue.add_job("resize", ttr=5)).ttr == 5
        assert queue.options("mail.send").retry.delay == (5, 10)
        with pytest.raises(ValueError, match="ttr: .* set once"):
            queue.options("resize", ttr=5)


def test_a_queue_has_the_limits_of_its_types(folder: Path):
    (folder / "kqueue.toml").write_text("[types.resize]\nrunning = 2\nstarts = 9\nperiod = 60")
    assert load().limits() == {"resize": {"running": 2, "starts": 9, "period": 60}}
    with pytest.raises(ValueError, match="resize has limits already"):
        KQueue.from_config(store="memory:").limit("resize", running=3)


def test_overrides_win_and_may_be_anything_that_kqueue_takes(folder: Path):
    (folder / "my.toml").write_text("store = 'sqlite:///jobs.db'\nbroker = 'beanstalk://here'\nprefix = 'a'")
    store = MemoryStore()
    with KQueue.from_config("my.toml", store=store, broker=None, prefix="b") as queue:
        assert queue.store is store
        assert not queue.broker.carries_pointers
        assert queue.prefix == tubes.beginning("b", store.identity())


def test_a_configuration_that_was_read_before_is_taken(folder: Path):
    read: Configuration = load(None, {"store": "memory:"}, {})
    assert KQueue.from_config(read).store.address == "memory:"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({}, "store: none is configured; give store=, or set it in kqueue.toml or KQUEUE_STORE"),
        ({"stroe": "memory:"}, "stroe: KQueue has no such argument; the nearest one is store"),
        ({"store": "memory:", "max_tries": 0}, "max_tries: at least 1, got 0"),
    ],
)
def test_from_config_refuses(folder: Path, overrides: dict[str, Any], said: str):
    with pytest.raises((ValueError, TypeError), match=re.escape(said)):
        KQueue.from_config(**overrides)
