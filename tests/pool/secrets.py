"""Whether anything that a pool writes anywhere holds a credential, however its runs end."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from flows.cli import run_command
from tests import fakes, s3_server
from tests.pool.stack import BUCKET, CONFIG, PLANTED, Dubbed, Place, Stack, free_port

WEBHOOK_TOKEN = "planted-webhook-token"
NEEDLES = {*PLANTED.values(), WEBHOOK_TOKEN, s3_server.CREDENTIALS["AWS_SECRET_ACCESS_KEY"], "X-Amz-Signature"}


def fail_in_many_ways(pool: Stack, dubbed: Dubbed, place: Place) -> list[int]:
    """A language fails, and nobody hears of it; the bucket is not there; the database is not there → exit codes."""
    more = ["--config", str(place.config), "--set", "prefect=false", "--set", 'dispatch="here"']
    with pool.inside() as patch:
        patch.setenv("INFINIDUB_SECRETS__WEBHOOK", f"http://127.0.0.1:{free_port()}/{WEBHOOK_TOKEN}")
        patch.setattr("flows.notify.WAITS_S", (0.0, 0.0))
        failing = fakes.series(pool.folder / "failing", languages=["it"])
        codes = [run_command(["run", str(failing), *more, "--generator", "passthrough"])]
        place.write_config(store="s3://no-such-bucket/x")
        codes.append(run_command(["run", str(dubbed.catalog), *more]))
        place.write_config(database=place.database.replace(f":{pool.postgres.port}/", f":{free_port()}/"))
        codes.append(run_command(["run", str(dubbed.catalog), *more]))
    place.write_config()
    return codes


def written(pool: Stack) -> Iterator[tuple[str, bytes]]:
    """Everything that lies anywhere, but for the settings files in which people themselves write an address."""
    for path in pool.folder.rglob("*"):
        if path.is_file() and path.name != CONFIG:  # logs, deliverables, caches, Prefect's database
            yield str(path), path.read_bytes()
    for place in pool.places:
        tables = sa.MetaData()
        tables.reflect(place.ledger.engine)
        with place.ledger.session() as session:
            for table in tables.sorted_tables:
                yield f"{place.name}: {table.name}", repr(session.execute(sa.select(table)).all()).encode()
    client = s3_server.client(pool.s3)
    for key in pool.keys(""):
        yield key, client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
