"""``kqueue add``: jobs from arguments, a file or the standard input."""

import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from typing import Any

import click

from kqueue import Added, KQueue, KQueueError
from kqueue.cli.terminal import make_queue, queue_options
from kqueue.cli.times import duration, instant
from kqueue.model.wording import counted

#: Jobs, and bytes of text, that are read before they are added together.
BATCH_JOBS = 1_000
BATCH_BYTES = 4 * 2**20


@click.command()
@queue_options
@click.argument("job_type", metavar="TYPE")
@click.argument("payloads", metavar="[PAYLOAD...]", nargs=-1)
@click.option("--lines", metavar="FILE", help="One PAYLOAD on each line of FILE; - is the standard input.")
@click.option("--priority", metavar="NAME|N", help="URGENT, HIGH, NORMAL, LOW, BULK, or 0..2**32-1.")
@click.option("--delay", callback=duration, metavar="TIME", help="Run it not before so long: 90, or 10m, 2h, 3d.")
@click.option("--run-at", callback=instant, metavar="TIME", help="Run it not before then: 2026-05-01T12:00.")
@click.option("--ttr", callback=duration, metavar="TIME", help="Time to run: how long a claim holds.")
@click.option("--unique", metavar="KEY", help="Of one PAYLOAD: add nothing while a job with this key is there.")
@click.option("--unique-for", callback=duration, metavar="TIME", help="The key is taken for so long at least.")
@click.option("--limit-key", metavar="KEY", help="Jobs with the same one count together where TYPE has limits.")
@click.option("--max-tries", type=click.IntRange(min=1), metavar="N", help="Failed runs until it is dead.")
@click.option("--retry-delay", callback=duration, metavar="TIME", help="Until it runs again; doubled each time.")
@click.option("--count", "only_count", is_flag=True, help="Print how many were added, not their ids.")
def add(
    *,
    store: str | None,
    broker: str | None,
    job_type: str,
    payloads: tuple[str, ...],
    lines: str | None,
    only_count: bool,
    **options: Any,
) -> None:
    """Add jobs of TYPE, one for each PAYLOAD, and print their ids.

    A PAYLOAD is JSON. A lone - reads one from each line of the standard input. No PAYLOAD at all is null.
    """
    if payloads == ("-",):
        payloads, lines = (), lines or "-"
    if payloads and lines:
        raise ValueError("add: give either PAYLOADs or --lines, not both")
    given = {name: value for name, value in options.items() if value is not None}
    if str(given.get("priority", "")).isdecimal():
        given["priority"] = int(given["priority"])

    if "unique_for" in given and "unique" not in given:
        raise ValueError("--unique-for: only together with --unique")
    if "unique" in given:
        if lines or len(payloads) > 1:
            raise ValueError("--unique: for one PAYLOAD")
        payload = _parse(*next(_texts(payloads, None)))
        with make_queue(store, broker) as queue:
            job_id, is_new = _add_one(queue, job_type, payload, given)
        click.echo(int(is_new) if only_count else job_id)
        return
    added = 0
    with make_queue(store, broker) as queue, closing(_texts(payloads, lines)) as texts:
        try:
            for batch in _batches(texts):
                ids = queue.add_jobs(job_type, batch, **given)
                added += len(ids)
                if not only_count:
                    click.echo("\n".join(ids))
        except (KQueueError, ValueError, TypeError) as error:
            if added == 0:
                raise
            raise click.ClickException(f"{error}; added before: {counted(added, 'job')}") from error
    if only_count:
        click.echo(added)


def _add_one(queue: KQueue, job_type: str, payload: object, given: dict[str, Any]) -> tuple[str, bool]:
    """(the id of the job that has the unique key, whether it is new)."""
    news = [False]
    queue.subscribe(lambda event: news.append(event.is_new) if isinstance(event, Added) else None)
    return queue.add_job(job_type, payload, **given), news[-1]


def _texts(payloads: Sequence[str], lines: str | None) -> Generator[tuple[str, bytes], None, None]:
    """Each payload's text, with what to call it in an error."""
    if lines is None:
        for number, text in enumerate(payloads or ["null"], 1):
            yield f"payload {number}", os.fsencode(text)
        return
    name = "standard input" if lines == "-" else lines
    with _open_lines(lines) as file:
        for number, line in enumerate(file, 1):
            if not line.isspace():
                yield f"{name}, line {number}", line


def _open_lines(path: str) -> AbstractContextManager[Iterable[bytes]]:
    if path != "-":
        return open(path, "rb")
    # Not by its number: where it is closed, 0 may be the store's own file by now.
    if sys.stdin is None:
        raise ValueError("standard input: it is closed; give PAYLOADs or --lines FILE")
    return nullcontext(sys.stdin.buffer)


def _batches(texts: Iterable[tuple[str, bytes]]) -> Iterator[list[object]]:
    """Parsed payloads in lists that are bounded, so that a file of any length takes little memory."""
    batch: list[object] = []
    size = 0
    for name, text in texts:
        batch.append(_parse(name, text))
        size += len(text)
        if len(batch) == BATCH_JOBS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _parse(name: str, text: bytes) -> object:
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        shown = text.decode(errors="replace").strip()
        raise ValueError(
            f"{name}: expected JSON, got {shown!r:.80} ({error}); a string has its own quotes, as in '\"text\"'"
        ) from None


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")
