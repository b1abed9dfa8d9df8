"""Commands without --broker use the broker that the store remembers, and say so; in real processes."""

import json
import shutil
from pathlib import Path

from kqueue import KQueue
from tests.beanstalkd import Beanstalkd, free_port
from tests.shop import Shop


def said(address: str) -> str:
    known = f"kqueue: the broker is {address}, as the store remembers"
    return f"{known}; --broker none for none, kqueue forget-broker to forget it\n"


def test_a_command_uses_it_and_says_so(shop: Shop, beanstalkd: Beanstalkd) -> None:
    with KQueue(shop.store, beanstalkd.url) as queue:
        queue.add_job("greet", priority=9)
        queue.flush()
        done = shop.kqueue("status", "--json")
        assert (done.returncode, done.stderr) == (0, said(queue.broker.address))
        assert json.loads(done.stdout)["types"]["greet"]["tube"]["ready"] == 1
        added = shop.kqueue("add", "greet", "1", "--priority", "5")
        assert added.stderr == said(queue.broker.address)
        queue.add_handler("greet", lambda job: job.delete())
        assert queue.broker.depths(["greet"])["greet"]["ready"] == 2
        assert queue.run_jobs().deleted == 2


def test_none_is_none_and_what_is_given_wins(shop: Shop, beanstalkd: Beanstalkd) -> None:
    with KQueue(shop.store, beanstalkd.url) as queue:
        queue.add_job("greet")
    done = shop.kqueue("status", "--broker", "none", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["types"]["greet"]["tube"] is None
    away = f"beanstalk://127.0.0.1:{free_port()}"
    done = shop.kqueue("sweep", "--broker", away)
    assert done.returncode == 2
    assert away in done.stderr
    assert "remembers" not in done.stderr
    done = shop.kqueue("list", "--state", "ready")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_copy_of_a_store_has_none(shop: Shop, beanstalkd: Beanstalkd, tmp_path: Path) -> None:
    with KQueue(shop.store, beanstalkd.url) as queue:
        queue.add_job("greet")
        queue.backup(tmp_path / "backup.db")
    shutil.copy(tmp_path / "backup.db", tmp_path / "copy.db")
    done = shop.kqueue("status", "--store", f"sqlite:///{tmp_path}/copy.db")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_last_broker_is_remembered_and_a_queue_without_one_forgets_none(shop: Shop) -> None:
    first, second = (f"beanstalk://127.0.0.1:{free_port()}" for _ in range(2))
    for broker in (first, second, None):
        with KQueue(shop.store, broker) as queue:
            queue.counts()
    assert shop.kqueue("doctor").stderr.startswith(said(second))


def test_it_is_forgotten_until_the_store_is_opened_with_one_again(shop: Shop) -> None:
    url = f"beanstalk://127.0.0.1:{free_port()}"
    with KQueue(shop.store, url) as queue:
        queue.counts()
    done = shop.kqueue("forget-broker")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"forgot {queue.broker.address}\n", "")
    assert shop.kqueue("doctor").stderr == ""
    done = shop.kqueue("forget-broker", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (1, {"forgotten": None})
    assert done.stderr == "kqueue: no broker was remembered\n"
    with KQueue(shop.store, url) as queue:
        queue.counts()
    assert shop.kqueue("doctor").stderr == said(queue.broker.address)


def test_none_is_forgotten_while_the_command_is_told_of_another(shop: Shop, beanstalkd: Beanstalkd) -> None:
    """It opens the store, and the broker that it is given is then the last one."""
    with KQueue(shop.store, f"beanstalk://127.0.0.1:{free_port()}") as queue:
        queue.counts()
    done = shop.kqueue("forget-broker", "--broker", beanstalkd.url)
    assert done.returncode == 0
    assert shop.kqueue("doctor").stderr == ""
