"""Two resident coordinators over one catalog: one works, the other takes over, who was paused publishes nothing."""

import signal

import pytest
import pytest_asyncio
from mariadb import mariadb_server
from polling import until

pytestmark = pytest.mark.asyncio(loop_scope="session")

SERVE = ("serve", "--incremental-at", "*/4 * * * * *", "--lease-ttl", "3s", "--progress-interval", "1s")


@pytest_asyncio.fixture(loop_scope="session")
async def catalog_url():
    with mariadb_server() as server:
        yield server.create_database("mover")


def said(background, kind, text=""):
    return [line for line in background.so_far().lines if line.get("type") == kind and text in str(line)]


async def sees(background, kind, text="", more_than=0, seconds=90):
    def there():
        assert background.running, f"it is gone: {background.so_far()}"
        found = said(background, kind, text)
        return found[more_than:]

    return (await until(there, f"{kind} {text!r} after {more_than}", seconds))[0]


async def test_a_standby_takes_over_and_the_one_that_was_paused_stands_by(lone, catalog_url):
    site = lone
    mover = site.mover.but(catalog=catalog_url)
    await site.query("CREATE DATABASE served")
    await site.query("CREATE TABLE served.t (id INT PRIMARY KEY)")
    async with mover.running(*SERVE) as first:
        await sees(first, "phase", "'name': 'lead'")
        async with mover.running(*SERVE) as second:
            await sees(second, "notice", "standing by")
            await sees(first, "notice", "is complete")
            assert not said(second, "phase", "'name': 'lead'")

            first.process.send_signal(signal.SIGSTOP)
            lead = await sees(second, "phase", "'name': 'lead'")
            assert lead["detail"] == "epoch 2"
            # The engine's log is held by one process of its host: who leads says who is in the way, and waits.
            await sees(second, "notice", "another mover process holds the log")
            await site.query("INSERT INTO served.t VALUES (1)")
            sets = (await mover.ok("show", "sets"))["sets"]
            done = len(said(second, "notice", "is complete"))
            first.process.send_signal(signal.SIGCONT)
            await sees(first, "notice", "standing by")
            await site.archived(await site.scn())  # by the second
            await sees(second, "notice", "is complete", done)

            await second.kill()
            await sees(first, "phase", "epoch 3")
            await site.query("INSERT INTO served.t VALUES (2)")
            await site.archived(await site.scn())
            await sees(first, "notice", "is complete", len(said(first, "notice", "is complete")))
        ended = await first.terminate()
        assert ended.code == 143
    after = (await mover.ok("show", "sets"))["sets"]
    # What the second published, nobody took back or made again.
    published = {each["backup_set_id"]: each["status"] for each in after}
    assert all(published[each["backup_set_id"]] == each["status"] for each in sets if each["status"] == "COMPLETED")
    report = await mover.ok("validate", "--all")
    assert report["ok"] and not report["violations"]
    until_scn = (await site.window())["until_scn"]
    async with site.restored("--until-scn", until_scn) as booted:
        assert await booted.query("SELECT COUNT(*) FROM served.t") == [(2,)]


async def test_the_plan_names_what_is_due_and_touches_nothing(lone):
    plan = await lone.mover.ok("serve", "--full-at", "0 1 * * SAT", "--incremental-at", "0 1 * * TUE,THU", "--plan")
    assert [entry["backup"] for entry in plan["scheduled"]].count("full") in {3, 4}
    ran = await lone.mover.run("serve", "--full-at", "at one")
    assert ran.code == 2 and "cron" in ran.error["message"]
