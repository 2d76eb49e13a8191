"""Checkpoints as files and as commits: whole or not at all, and never over what the log does not continue."""

from __future__ import annotations

import asyncio
import datetime
import os
import subprocess
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from integration.publishing.listeners import Witness
from integration.publishing.log import Log
from redflag.audit import merkle
from redflag.audit.checkpoint import Checkpoint, Signer, load_key, open_own
from redflag.publishing import files
from redflag.publishing import git as publishing_git
from redflag.publishing.targets import TargetFailed


def git(folder: Path, *arguments: str) -> str:
    """What git says, to somebody who has no settings of their own."""
    surroundings = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"}
    ran = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, env=surroundings
    )
    return ran.stdout.strip()


@pytest.fixture
def put(log: Log, folder: Path) -> Callable[[Path, int], Awaitable[Checkpoint]]:
    """Puts one more checkpoint into a repository, so many hours from now."""
    began = datetime.datetime.now(datetime.UTC)

    async def put(repository: Path, hour: int) -> Checkpoint:
        async def continues(before: str) -> Checkpoint:
            return open_own(before, log.signer.verifier.public)

        checkpoint, disk = await log.grow(), files.Disk(5)
        assert checkpoint.size == await publishing_git.put(
            disk, repository, checkpoint.note, checkpoint.size, continues,
            now=began + datetime.timedelta(hours=hour), every=datetime.timedelta(hours=1), patience=5,
        )  # fmt: skip
        disk.close()
        return checkpoint

    folder.mkdir(exist_ok=True)
    return put


async def test_a_file_holds_the_newest_checkpoint_with_its_cosignatures(log, add, sender, folder, due):
    target = await add("file", "newest.txt")
    for _ in range(2):
        checkpoint = await log.grow()
        assert [one.error for one in await sender.send_due()] == [""]
        assert (folder / "newest.txt").read_text() == checkpoint.note
        await due()
    async with Witness(log.vkey) as witness:
        await add("witness", witness.url, vkey=witness.vkey)
        checkpoint = await log.grow()
        await sender.send_due()
        await sender.try_now(target["id"])
    assert (folder / "newest.txt").read_text() == checkpoint.note + (await log.cosignatures())[0]["line"] + "\n"
    assert [one.name for one in folder.iterdir()] == ["newest.txt"]


def test_a_file_is_never_seen_half_written(tmp_path):
    file, seen, over = tmp_path / "newest.txt", set(), threading.Event()
    notes = [f"{number}\n" * 5000 for number in range(3)]
    files.write(file, notes[0])

    def look() -> None:
        while not over.is_set():
            seen.add(file.read_text())

    looking = threading.Thread(target=look)
    looking.start()
    for number in range(60):
        files.write(file, notes[number % 3])
    over.set()
    looking.join()
    assert seen <= set(notes)
    assert [one.name for one in tmp_path.iterdir()] == ["newest.txt"]


async def test_what_is_no_checkpoint_of_this_log_is_not_written_over(log, add, sender, folder, tmp_path):
    folder.mkdir()
    other = load_key("other.example/log", tmp_path / "other")
    for number, text in enumerate(("my notes", "", "a\n" * 100_000, other.sign(1, bytes(32)))):
        (folder / f"{number}.txt").write_text(text)
        await add("file", f"{number}.txt", name=str(number))
    (folder / "4.txt").mkdir()
    await add("file", "4.txt", name="4")
    await log.grow()
    outcomes = {one.name: one.error for one in await sender.send_due()}
    assert all("holds something that is no checkpoint of this log" in outcomes[str(number)] for number in range(4))
    assert "cannot be used: Is a directory" in outcomes["4"]
    assert (folder / "0.txt").read_text() == "my notes"


@pytest.mark.parametrize("kind", ["file", "git"])
@pytest.mark.parametrize(("more", "said"), [(1000, "the database was rolled back"), (0, "records were changed")])
async def test_a_checkpoint_that_the_log_does_not_continue_stays_and_is_told_of(
    log, add, sender, folder, due, kind, more, said
):
    await add(kind, "kept", every=1)
    await log.grow()
    await sender.send_due()
    newest = await log.newest()
    forged = log.signer.sign(newest.size + more, merkle.leaf_hash(b"other"))
    place = folder / "kept"
    if kind == "git":
        clone = folder / "clone"
        git(folder, "clone", "-q", str(place), str(clone))
        (clone / "checkpoint").write_text(forged)
        git(clone, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qam", "x")
        git(clone, "push", "-q")
    else:
        place.write_text(forged)
    await log.grow()
    await due()
    (outcome,) = await sender.send_due()
    assert "kept holds a checkpoint that the log does not continue" in outcome.error
    assert said in outcome.error
    kept = git(place, "show", "HEAD:checkpoint") + "\n" if kind == "git" else place.read_text()
    assert kept == forged


async def test_a_folder_that_nobody_may_write_to_is_told_of(log, add, make_sender, tmp_path):
    (tmp_path / "file").write_text("")
    sender = make_sender(folder=tmp_path / "file")
    await add("file", "newest.txt")
    await add("git", "repository")
    await log.grow()
    outcomes = await sender.send_due()
    assert len(outcomes) == 2
    assert all("Not a directory" in one.error or "git init failed" in one.error for one in outcomes)


async def test_a_disk_that_hangs_holds_one_thread_and_nobody_else(tmp_path):
    disk, free = files.Disk(0.1), threading.Event()
    with pytest.raises(TargetFailed, match=r"did not answer within 0\.1 s"):
        await disk.do(tmp_path / "hanging", free.wait)
    for _ in range(100):
        with pytest.raises(TargetFailed, match="still does not answer"):
            await disk.do(tmp_path / "hanging", free.wait)
        assert await disk.do(tmp_path / "well", tmp_path.exists)
    free.set()
    for _ in range(1000):
        try:
            assert await disk.do(tmp_path / "hanging", tmp_path.exists)
            break
        except TargetFailed:
            await asyncio.sleep(0.001)
    else:
        raise AssertionError("it hangs for ever")
    disk.close()


async def test_a_repository_gets_a_commit_for_a_checkpoint_and_its_whole_history_can_be_checked(log, put, folder):
    sent = [await put(folder / "history", hour) for hour in range(3)]
    history = git(folder / "history", "log", "--reverse", "--format=%H %an <%ae> %cn %s").splitlines()
    assert [line.split(" ", 1)[1] for line in history] == [
        f"RedFlag <checkpoints@redflag.invalid> RedFlag Checkpoint of {one.size} records" for one in sent
    ]
    for line, one in zip(history, sent, strict=True):
        assert git(folder / "history", "show", f"{line.split()[0]}:checkpoint") + "\n" == one.note
    assert git(folder / "history", "fsck", "--strict") == ""


async def test_a_repository_has_no_more_commits_than_it_wants(log, add, sender, folder, due, state):
    target = await add("git", "hourly", every=3600)
    first = await log.grow()
    await sender.send_due()
    await log.grow()
    assert await sender.send_due() == []
    await sender.try_now(target["id"])
    assert git(folder / "hourly", "rev-list", "--count", "HEAD") == "1"
    assert (await state(target))["acknowledged_size"] == first.size


async def test_commits_are_pushed_and_those_that_could_not_be_are_pushed_later(
    log, add, sender, folder, tmp_path, due, state
):
    remote = tmp_path / "remote.git"
    folder.mkdir()
    git(folder, "init", "-q", "--bare", "-b", "main", "pushed")
    git(folder / "pushed", "remote", "add", "origin", str(remote))
    target = await add("git", "pushed", every=3600)
    checkpoint = await log.grow()
    (outcome,) = await sender.send_due()
    assert "git ls-remote failed" in outcome.error
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    hook = remote / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    for _ in range(3):
        await due()
        (outcome,) = await sender.send_due()
        assert "git push failed" in outcome.error
    await log.grow()
    hook.unlink()
    await due()
    assert [one.error for one in await sender.send_due()] == [""]
    assert git(remote, "show", "main:checkpoint") + "\n" == checkpoint.note
    assert git(remote, "rev-list", "--count", "main") == "1"
    assert (await state(target))["acknowledged_size"] == checkpoint.size


async def test_servers_on_several_hosts_push_to_one_remote_and_keep_what_else_is_there(log, put, tmp_path):
    remote = tmp_path / "remote.git"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "remote.git")
    git(tmp_path, "clone", "-q", str(remote), "work")
    (tmp_path / "work" / "README").write_text("kept for the auditors")
    git(tmp_path / "work", "add", "README")
    git(tmp_path / "work", "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "x")
    git(tmp_path / "work", "push", "-q", "origin", "HEAD:main")
    for host in ("one", "two"):
        (tmp_path / host).mkdir()
        git(tmp_path / host, "clone", "-q", *(() if host == "one" else ("--bare",)), str(remote), "pushed")
    for hour in range(4):
        checkpoint = await put(tmp_path / ("one", "two")[hour % 2] / "pushed", hour)
        if hour == 1:
            # What one host committed and could not push gives way to what the other has pushed
            lonely = ("commit", "-q", "--allow-empty", "-m", "lonely")
            git(tmp_path / "one" / "pushed", "-c", "user.name=x", "-c", "user.email=x@x", *lonely)
    assert git(remote, "show", "main:checkpoint") + "\n" == checkpoint.note
    assert git(remote, "show", "main:README") == "kept for the auditors"
    assert git(remote, "rev-list", "--count", "main") == "5"


async def test_a_repository_further_up_is_not_taken_for_the_target(log, add, sender, folder, tmp_path):
    git(tmp_path, "init", "-q")
    (folder / "nothing").mkdir(parents=True)
    await add("git", "nothing")
    await log.grow()
    (outcome,) = await sender.send_due()
    assert "not a git repository" in outcome.error
    assert not (tmp_path / ".git" / "refs" / "heads" / "main").exists()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_git_that_hangs_is_ended_with_all_that_it_started(log, add, make_sender, folder, tmp_path):
    folder.mkdir()
    git(folder, "init", "-q", "--bare", "hanging")
    said = tmp_path / "pid"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $$ > {said}\nexec sleep 1000\n")
    program.chmod(0o755)
    git(folder / "hanging", "remote", "add", "origin", "ext::" + str(program))
    git(folder / "hanging", "config", "protocol.ext.allow", "always")
    await add("git", "hanging")
    await log.grow()
    (outcome,) = await make_sender(patience=1).send_due()
    assert "git took more than 1 s" in outcome.error
    pid = int(said.read_text())
    for _ in range(1000):
        if not _runs(pid):
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("it still runs")


async def test_the_file_of_a_log_that_goes_on_under_another_name_is_continued(log, add, sender, folder):
    before = await log.newest()
    folder.mkdir()
    # The key stays, and so do the records
    (folder / "newest.txt").write_text(Signer("before.example/log", log.signer._private).sign(before.size, before.root))
    await add("file", "newest.txt")
    checkpoint = await log.grow()
    assert [one.error for one in await sender.send_due()] == [""]
    assert (folder / "newest.txt").read_text() == checkpoint.note
