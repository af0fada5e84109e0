"""One apply at a time: the kernel's lock, held by this process and by real other ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dual_iac import lock as lock_module
from dual_iac.errors import DualError, LockedError
from dual_iac.lock import lock

HOLDER = """\
import sys, time
from pathlib import Path
from dual_iac import lock as lock_module
lock_module._FOLDER = Path(sys.argv[1])
with lock_module.lock("shop", "engine-1"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for locks that nobody else on this machine uses."""
    monkeypatch.setattr(lock_module, "_FOLDER", tmp_path / "locks")
    return tmp_path / "locks"


@contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of shop on engine-1."""
    command = [sys.executable, "-c", HOLDER, str(folder), "s p"]
    environment = {**os.environ, "USER": "ada"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_who_holds_it_is_told(folder: Path) -> None:
    with held(folder) as holder, pytest.raises(LockedError) as raised, lock("shop", "engine-1"):
        pytest.fail("two hold it")
    error = raised.value
    assert error.exit_code == 75
    assert error.summary == "Somebody else is changing project shop right now"
    assert error.why.startswith(f"ada runs `-c {folder} 's p'` (process {holder.pid}) since ")
    assert error.why.endswith(" s ago")
    assert error.mend.endswith(f"kill {holder.pid}")


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nobody)
    with lock("shop", "engine-1"), pytest.raises(LockedError) as raised, lock("shop", "engine-1"):
        pytest.fail("two hold it")
    assert raised.value.why.startswith(f"user {os.getuid()} runs ")


def test_it_is_free_as_soon_as_its_holder_is_dead(folder: Path) -> None:
    with held(folder) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock("shop", "engine-1"):
            pass


def test_it_is_free_as_soon_as_its_holder_is_done(folder: Path) -> None:
    with held(folder) as holder:
        holder.communicate("\n")
        with lock("shop", "engine-1"):
            pass


@pytest.mark.parametrize("names", [("shop", "engine-2"), ("other", "engine-1")])
def test_others_are_independent(folder: Path, names: tuple[str, str]) -> None:
    with held(folder), lock(*names):
        pass


def test_one_process_holds_it_once() -> None:
    with lock("shop", "e"), pytest.raises(LockedError), lock("shop", "e"):
        pytest.fail("held twice")
    with lock("shop", "e"):
        pass


def test_it_is_free_after_an_error() -> None:
    with pytest.raises(KeyError), lock("shop", "e"):
        raise KeyError
    with lock("shop", "e"):
        pass


def test_of_many_who_try_one_gets_it() -> None:
    got, start = [], threading.Barrier(8)

    def attempt() -> None:
        start.wait()
        with ExitStack() as stack:
            try:
                stack.enter_context(lock("shop", "e"))
            except LockedError:
                start.wait()
            else:
                got.append(1)
                start.wait()

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", '{"since": "then"}', '{"since": 1}'])
def test_who_has_just_begun_has_not_said_who_it_is(folder: Path, text: str) -> None:
    with lock("shop", "e"):
        [file] = folder.iterdir()
        file.write_text(text)
        with pytest.raises(LockedError) as raised, lock("shop", "e"):
            pytest.fail("held twice")
    assert raised.value.why == "it has just begun"
    assert raised.value.mend == "wait until it is done"


def test_nothing_is_left_in_it_of_who_held_it(folder: Path) -> None:
    with lock("shop", "e"):
        [file] = folder.iterdir()
        assert str(os.getpid()) in file.read_text()
    assert file.read_text() == ""


def test_everybody_on_this_machine_can_take_it(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        with lock("shop", "e"):
            pass
    finally:
        os.umask(before)
    [file] = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o666
    assert folder.stat().st_mode & 0o7777 == 0o1777, "but nobody can remove another's"


def test_names_stay_in_the_folder(folder: Path) -> None:
    with lock("../../etc/passwd", "a/b:c"):
        assert [file.name for file in folder.iterdir()] == ["etcpasswd_abc.lock"]


def test_a_folder_that_is_cleaned_up_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opened the file that was removed since would hold a lock that nobody else sees."""
    opened, tries = lock_module._opened, []

    def cleaned_up(path: Path) -> object:
        file = opened(path)
        tries.append(path)
        if len(tries) == 1:
            path.unlink()
        elif len(tries) == 2:
            path.unlink()
            path.touch()
        return file

    monkeypatch.setattr(lock_module, "_opened", cleaned_up)
    with lock("shop", "e"):
        assert len(tries) == 3
        [file] = folder.iterdir()
        assert str(os.getpid()) in file.read_text()


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """Anybody can put one in a folder that all can write to."""
    folder.mkdir()
    target = tmp_path / "mine"
    target.write_text("mine")
    (folder / "shop_e.lock").symlink_to(target)
    with pytest.raises(DualError, match="can't be taken"), lock("shop", "e"):
        pytest.fail("taken")
    assert target.read_text() == "mine"


def test_a_folder_that_cannot_be(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(DualError, match="can't be taken") as raised, lock("shop", "e"):
        pytest.fail("taken")
    assert "Not a directory" in raised.value.why
    assert str(folder) in raised.value.mend


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_another_users_file_is_taken_without_making_it(folder: Path) -> None:
    """With fs.protected_regular, to open it with O_CREAT is denied, whatever its mode."""
    with lock("shop", "e"):
        pass
    [file] = folder.iterdir()
    os.chown(file, 12345, 12345)
    with lock("shop", "e"):
        assert file.stat().st_uid == 12345
