"""``kqueue config``, and the configuration below all commands, in real processes."""

import json
import signal
from pathlib import Path

import pytest

from kqueue import KQueue
from kqueue.config.keys import WORKER
from kqueue.model import tubes
from tests.beanstalkd import Beanstalkd
from tests.cli.find_jobs import FIND_JOBS
from tests.shop import NO_JOB, PATIENCE_S, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Its store stands in a file, and nothing in the environment."""
    shop = Shop(tmp_path)
    del shop.environment["KQUEUE_STORE"]
    (tmp_path / "kqueue.toml").write_text(f'store = "{shop.store}"\n')
    return shop


def rows(shop: Shop, *args: str) -> dict[str, list[str]]:
    """By key: the value and the words of its source."""
    done = shop.kqueue("config", *args)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()[3:]]
    return {key: rest for key, *rest in lines}


def of_the_file(shop: Shop) -> None:
    """The app's queue is what the file says."""
    code = (shop.folder / "shop.py").read_text()
    made = 'KQueue(store="sqlite:///jobs.db", retry_delay=600)'
    assert made in code
    (shop.folder / "shop.py").write_text(code.replace(made, "KQueue.from_config()"))


def test_config_says_where_each_value_came_from(shop: Shop):
    shop.environment["KQUEUE_WORKER_GRACE"] = "2.5"
    shown = rows(shop, "--threads", "8")
    assert shown["store"] == [shop.store, "kqueue.toml:1"]
    assert shown["worker.grace"] == ["2.5", "environment", "KQUEUE_WORKER_GRACE"]
    assert shown["worker.threads"] == ["8", "--threads"]
    assert shown["broker"] == ["none", "default"]


def test_config_for_programs(shop: Shop):
    done = shop.kqueue("config", "--json", "--store", "memory:")
    said = json.loads(done.stdout)
    assert (said["files"], said["env"]) == (["kqueue.toml"], None)
    assert said["settings"]["store"] == {"value": "memory:", "source": "--store"}
    assert said["settings"]["max_tries"] == {"value": 30, "source": "default"}


def test_config_shows_lists_and_tables(shop: Shop):
    with (shop.folder / "kqueue.toml").open("a") as file:
        file.write("[types.a]\nretry_delay = [1, 2.5]\n[types.b]\nretry_delay = {first = 1, jitter = 0.1}\n")
    shown = rows(shop)
    assert " ".join(shown["types.a.retry_delay"]) == "[1, 2.5] kqueue.toml:3"
    assert shown["types.b.retry_delay"][:3] == ["{first", "=", "1,"]
    settings = json.loads(shop.kqueue("config", "--json").stdout)["settings"]
    assert settings["types.a.retry_delay"]["value"] == [1, 2.5]
    assert settings["types.b.retry_delay"]["value"] == {"first": 1, "factor": 2, "most": 3600, "jitter": 0.1}


def test_config_where_nothing_is_configured(shop: Shop):
    (shop.folder / "kqueue.toml").unlink()
    assert shop.kqueue("config").stdout.startswith("files  none\n")
    assert {value[1] for value in rows(shop).values()} == {"default"}
    assert json.loads(shop.kqueue("config", "--json").stdout)["files"] == []


def test_config_takes_every_option_of_the_worker(shop: Shop):
    said = shop.kqueue("config", "--help").stdout
    assert all(f"{key.option} " in said for key in WORKER)


@pytest.mark.parametrize("as_json", [False, True])
def test_config_shows_no_password(shop: Shop, as_json: bool):
    shop.environment["KQUEUE_STORE"] = "mongodb://me:secret@127.0.0.1:27017/app?authSource=x"
    done = shop.kqueue("config", *["--json"] * as_json)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mongodb://me:***@127.0.0.1:27017/app" in done.stdout
    assert "secret" not in done.stdout


@pytest.mark.parametrize("command", [["add", "greet", "1"], *FIND_JOBS], ids=" ".join)
def test_every_command_finds_the_store_in_the_file(shop: Shop, command: list[str]):
    with KQueue(store=shop.store) as queue:
        queue.add_job("greet")
    done = shop.kqueue(*command)
    assert done.returncode == (1 if NO_JOB in command else 0), done
    assert "no store" not in done.stderr


def test_the_environment_wins_over_the_file_and_an_option_over_both(shop: Shop, beanstalkd: Beanstalkd):
    shop.kqueue("add", "a", "1")
    shop.environment["KQUEUE_STORE"] = "sqlite:///second.db"
    shop.kqueue("add", "b", "1")
    third = ["--store", "sqlite:///third.db", "--broker", beanstalkd.url]
    shop.kqueue("add", "c", "1", *third)
    for types, options in [(["c"], third), (["b"], [])]:
        assert list(json.loads(shop.kqueue("status", "--json", *options).stdout)["types"]) == types
    shop.environment["KQUEUE_STORE"] = ""
    assert list(json.loads(shop.kqueue("status", "--json").stdout)["types"]) == ["a"]


@pytest.mark.parametrize("how", ["--config", "KQUEUE_CONFIG"])
def test_another_file_can_be_named(shop: Shop, how: str):
    (shop.folder / "other.toml").write_text('store = "sqlite:///other.db"\nprefix = "mine."\n')
    if how == "KQUEUE_CONFIG":
        shop.environment[how] = "other.toml"
    args = [how, "other.toml"] if how == "--config" else []
    shop.ids("greet", "1", *args)
    with KQueue(store=f"sqlite:///{shop.folder}/other.db") as queue:
        assert queue.counts()["ready"] == 1
        assert queue.prefix == tubes.beginning("mine.", queue.store.identity())
    assert rows(shop, *args)["prefix"] == ["mine.", "other.toml:2"]


def test_an_option_can_take_the_files_broker_away(shop: Shop):
    with (shop.folder / "kqueue.toml").open("a") as file:
        file.write('broker = "beanstalk://127.0.0.1:1"\n')
    assert shop.kqueue("add", "greet", "1").returncode == 0
    assert "127.0.0.1:1" in shop.refused("sweep")
    assert shop.kqueue("sweep", "--broker", "none").returncode == 0


def test_an_apps_queue_can_be_that_of_the_file(shop: Shop):
    of_the_file(shop)
    shop.ids("greet", '"Ada"', "--config", "kqueue.toml")
    assert "hello Ada" in shop.kqueue("run", "--app", "shop:queue").stdout
    (shop.folder / "kqueue.toml").write_text("stroe = 1")
    assert "kqueue.toml:1: stroe: there is no such key; the nearest one is store" in shop.refused(
        "run", "--app", "shop:queue"
    )


def test_an_apps_queue_is_used_as_the_app_has_made_it(shop: Shop):
    shop.environment["KQUEUE_STORE"] = "sqlite:///other.db"
    with KQueue(store=shop.store) as queue:
        queue.add_job("greet", "Ada")
    assert "hello Ada" in shop.kqueue("run", "--app", "shop:queue").stdout


@pytest.mark.parametrize("how", ["kqueue.toml", "--config", "KQUEUE_WORKER_APP"])
def test_a_worker_can_be_configured_and_its_apps_queue_too(shop: Shop, how: str):
    of_the_file(shop)
    path = shop.folder / "kqueue.toml"
    args = []
    if how == "KQUEUE_WORKER_APP":
        shop.environment[how] = "shop:queue"
    else:
        path.write_text(path.read_text() + '[worker]\napp = "shop:queue"\n')
    if how == "--config":
        path.rename(shop.folder / "other.toml")
        args = [how, "other.toml"]
    shop.ids("greet", '"Ada"', *args)
    with shop.start("worker", *args) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hello Ada\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


def test_run_hands_its_file_on_to_the_app(shop: Shop):
    of_the_file(shop)
    (shop.folder / "kqueue.toml").rename(shop.folder / "other.toml")
    shop.ids("greet", '"Ada"', "--config", "other.toml")
    assert "hello Ada" in shop.kqueue("run", "--app", "shop:queue", "--config", "other.toml").stdout
    assert "store: none is configured" in shop.refused("run", "--app", "shop:queue")


@pytest.mark.parametrize("how", ["--env", "KQUEUE_ENV"])
@pytest.mark.parametrize("command", ["run", "worker"])
def test_the_environments_file_reaches_the_app_and_its_processes(shop: Shop, how: str, command: str):
    of_the_file(shop)
    (shop.folder / "kqueue.toml").write_text("max_tries = 5\n")
    (shop.folder / "kqueue.here.toml").write_text(f'store = "{shop.store}"\n[worker]\napp = "shop:queue"\n')
    args = ["--env", "here"]
    if how == "KQUEUE_ENV":
        shop.environment[how], args = "here", []
    shop.ids("greet", '"Ada"', *args)
    assert rows(shop, *args)["store"] == [shop.store, "kqueue.here.toml:1"]
    if command == "run":
        assert "hello Ada" in shop.kqueue("run", *args).stdout
        return
    with shop.start("worker", *args) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hello Ada\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [
        ("", [], "--app: there is none; give it, or set KQUEUE_WORKER_APP, or app in [worker] of kqueue.toml"),
        (
            "[worker]\nthread = 3",
            [],
            "kqueue.toml:2: worker.thread: there is no such key; the nearest one is threads",
        ),
        ("[worker]\nthreads = 0", ["--app", "shop:queue"], "kqueue.toml:2: threads: at least 1, got 0"),
        ("[worker]\nthreads = 3", ["--app", "shop:queue", "--threads", "0"], "--threads: at least 1, got 0"),
        ("", ["--app", "shop:queue", "--max-jobs", "0"], "--max-jobs: at least 1, got 0"),
    ],
)
def test_a_worker_that_is_configured_badly_does_not_start(shop: Shop, text: str, args: list[str], said: str):
    (shop.folder / "kqueue.toml").write_text(text)
    assert said in shop.refused("worker", *args)


@pytest.mark.parametrize("command", [["config"], ["add", "greet"], *FIND_JOBS], ids=" ".join)
@pytest.mark.parametrize(
    ("text", "variable", "said"),
    [
        ("max_trys = 3", "", "kqueue.toml:1: max_trys: there is no such key; the nearest one is max_tries"),
        (
            "",
            "KQUEUE_MAX_TRYS",
            "environment KQUEUE_MAX_TRYS: there is no such key; the nearest one is KQUEUE_MAX_T",
        ),
    ],
)
def test_a_mistake_stops_every_command_with_one_line(
    shop: Shop, command: list[str], text: str, variable: str, said: str
):
    (shop.folder / "kqueue.toml").write_text(f'{text}\nstore = "sqlite:///new.db"\n')
    if variable:
        shop.environment[variable] = "3"
    assert said in shop.refused(*command)
    assert not (shop.folder / "new.db").exists()


def test_a_mistyped_path_is_said_with_its_source(shop: Shop):
    (shop.folder / "kqueue.toml").write_text('# mine\nstore = "sqlite:///jbos.db"\n')
    assert "jbos.db, which kqueue.toml:2 names" in shop.refused("status")
    shop.environment["KQUEUE_STORE"] = "sqlite:///jbos.db"
    assert "jbos.db, which environment KQUEUE_STORE names" in shop.refused("status")


def test_an_unnamed_file_in_another_folder_is_not_read(shop: Shop):
    (shop.folder / "inner").mkdir()
    shop.folder = shop.folder / "inner"
    assert "no store" in shop.refused("status")
