"""A service of the compose file → the fields that a plan compares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dual_iac.fields import desired_fields
from dual_iac.interpolation import InterpolationError
from dual_iac.model import size_in_bytes
from dual_iac.state import LABEL_HASH, LABEL_PROJECT, LABEL_WORKSPACE

CPUSET = {"resources.cpuset": "0,1"}
VARIABLES = {"SECRET": "s3cret", "TAG": "22", "DIR": "/data", "MEM": "2g", "CPUS": "1.5"}


def fields_of(
    folder: Path, variables: Mapping[str, str] = VARIABLES, **service: Any
) -> tuple[dict[str, Any], frozenset[str]]:
    """The fields of a service besides its image and its name, and the names of hidden ones."""
    definition = {"image": "node", "networks": {}, **service}
    fields, hidden = desired_fields("main", definition, folder, variables, "shop")
    return {name: fields[name] for name in fields if name not in ("image", "name")}, hidden


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("1b", 1),
        ("1k", 2**10),
        ("512m", 512 * 2**20),
        ("1g", 2**30),
        ("1G", 2**30),
        ("1gb", 2**30),
        ("1 GiB", 2**30),
        ("0.5t", 2**39),
        (" 1m ", 2**20),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "g", "-1", "1x", "1.g", "1e3"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        size_in_bytes(text)


@pytest.mark.parametrize(
    ("service", "fields"),
    [
        ({}, {}),
        ({"command": "npm run 'a b'"}, {"command": ("npm", "run", "a b")}),
        ({"command": ["npm", "run"]}, {"command": ("npm", "run")}),
        ({"group_add": [999, "audio"]}, {"group_add": ("999", "audio")}),
        (
            {"devices": ["/dev/kvm", "/dev/fuse:/dev/f:r"]},
            {"devices": ("/dev/fuse:/dev/f:r", "/dev/kvm:/dev/kvm:rwm")},
        ),
        ({"tmpfs": "/run"}, {"tmpfs./run": ""}),
        ({"tmpfs": ["/run", "/tmp:size=1m"]}, {"tmpfs./run": "", "tmpfs./tmp": "size=1m"}),
        ({"command": ["echo", "$$HOME"]}, {"command": ("echo", "$HOME")}),
        ({"entrypoint": "tini --"}, {"entrypoint": ("tini", "--")}),
        ({"entrypoint": ["a b"]}, {"entrypoint": ("a b",)}),
        ({"user": "1000:1000"}, {"user": "1000:1000"}),
        ({"working_dir": "/workspace"}, {"working_dir": "/workspace"}),
        ({"hostname": "main"}, {"hostname": "main"}),
        ({"restart": "unless-stopped"}, {"restart": "unless-stopped"}),
        ({"init": True, "read_only": True, "privileged": False}, {"init": True, "read_only": True}),
        ({"cap_drop": ["NET_RAW", "ALL"]}, {"cap_drop": ("ALL", "NET_RAW")}),
        ({"cap_drop": [], "cap_add": []}, {}),
        ({"security_opt": ["b:true", "a"]}, {"security_opt": ("a", "b:true")}),
        ({"cpus": "1.50"}, {"resources.cpus": 1.5}),
        ({"cpus": 2}, {"resources.cpus": 2.0}),
        ({"mem_limit": "512m"}, {"resources.memory": 512 * 2**20}),
        ({"pids_limit": 100}, {"resources.pids": 100}),
        ({"networks": {"ws-a": {"ipv4_address": "10.0.0.2"}}}, {"networks.ws-a": "10.0.0.2"}),
        ({"networks": {"ws-a": None}}, {"networks.ws-a": ""}),
        ({"environment": {"A": "1", "B": "$$"}}, {"env.A": "1", "env.B": "$"}),
        (
            {"volumes": [{"type": "volume", "source": "a--v", "target": "/v"}]},
            {"mounts./v": "volume shop_a--v"},
        ),
        (
            {"volumes": [{"type": "volume", "source": "v", "target": "/$$v", "read_only": True}]},
            {"mounts./$v": "volume shop_v (read-only)"},
        ),
        (
            {"ports": [{"target": 8000, "published": "3000", "host_ip": "127.0.0.1"}]},
            {"ports.8000/tcp": "127.0.0.1:3000"},
        ),
        (
            {"ports": [{"target": 1, "published": "2", "host_ip": "::1", "protocol": "udp"}]},
            {"ports.1/udp": "::1:2"},
        ),
        (
            {"labels": {LABEL_PROJECT: "shop", LABEL_WORKSPACE: "a", LABEL_HASH: "x", "my": "l"}},
            {
                f"labels.{LABEL_PROJECT}": "shop",
                f"labels.{LABEL_WORKSPACE}": "a",
                "labels.my": "l",
            },
        ),
        ({"labels": {"com.docker.compose.x": "1", "desktop.docker.io/x": "1"}}, {}),
        # Docker's own words for limits that only a user's template sets.
        ({"cpuset": "0"}, {"resources.cpuset": "0"}),
        ({"pid": "host", "security_opt": ["label=disable"]}, {"pid_mode": "host"}),
        (
            {"deploy": {"resources": {"limits": {"cpus": "0.5", "memory": "1g", "pids": 9}}}},
            {"resources.cpus": 0.5, "resources.memory": 2**30, "resources.pids": 9},
        ),
        ({"cpu_shares": 512, "cpuset": "0,1"}, {"resources.cpu_shares": "512"} | CPUSET),
        ({"mem_reservation": "1m"}, {"resources.mem_reservation": 2**20}),
        ({"memswap_limit": -1}, {}),
        # What the engine shows as unset: were these fields, no plan would ever be empty.
        ({"cpu_shares": 0}, {}),
        ({"mem_limit": "1k", "memswap_limit": "2k"}, {"resources.memory": 1024}),
        ({"memswap_limit": "2k"}, {"resources.memswap_limit": 2048}),
    ],
)
def test_fields(tmp_path: Path, service: dict[str, Any], fields: dict[str, Any]) -> None:
    assert fields_of(tmp_path, **service) == (fields, frozenset())


@pytest.mark.parametrize(
    ("service", "fields"),
    [
        ({"command": "run $SECRET"}, {"command": ("run", "s3cret")}),
        ({"command": ["run", "${SECRET}"]}, {"command": ("run", "s3cret")}),
        ({"user": "${UID:-1000}"}, {"user": "1000"}),
        ({"cpus": "$CPUS"}, {"resources.cpus": 1.5}),
        ({"mem_limit": "$MEM"}, {"resources.memory": 2 * 2**30}),
        ({"environment": {"A": "x-$SECRET"}}, {"env.A": "x-s3cret"}),
        ({"environment": {"SECRET": None}}, {"env.SECRET": "s3cret"}),
        (
            {"volumes": [{"type": "bind", "source": "$DIR", "target": "/d"}]},
            {"mounts./d": "bind /data"},
        ),
    ],
)
def test_what_comes_out_of_variables_is_hidden(
    tmp_path: Path, service: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert fields_of(tmp_path, **service) == (fields, frozenset(fields))


def test_the_image(tmp_path: Path) -> None:
    definition = {"image": "node:$TAG", "networks": {}}
    fields, hidden = desired_fields("main", definition, tmp_path, VARIABLES, "shop")
    assert fields == {"image": "node:22", "name": "shop-main-1"}
    assert hidden == {"image"}


def test_a_variable_that_is_not_there_is_not_passed_through(tmp_path: Path) -> None:
    assert fields_of(tmp_path, environment={"NOT_THERE": None}) == ({}, frozenset())


def test_a_required_variable_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InterpolationError, match="variable TOKEN: ask ada"):
        fields_of(tmp_path, environment={"A": "${TOKEN:?ask ada}"})


@pytest.mark.parametrize(
    ("source", "expected"),
    [(".", "out"), ("..", ""), ("../web", "web"), ("../web/", "web"), ("./a/../b", "out/b")],
)
def test_bind_mounts_start_from_the_folder(tmp_path: Path, source: str, expected: str) -> None:
    volume = {"type": "bind", "source": source, "target": "/workspace"}
    fields, _ = fields_of(tmp_path / "out", volumes=[volume])
    place = str(tmp_path.resolve() / expected).rstrip("/")
    assert fields == {"mounts./workspace": f"bind {place}"}


def test_bind_mounts_follow_links_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.setenv("HOME", str(tmp_path))
    place = (tmp_path / "real").resolve()
    for source in ("link", "~/link", str(tmp_path / "link")):
        mount = {"type": "bind", "source": source, "target": "/w", "read_only": True}
        fields, hidden = fields_of(tmp_path, volumes=[mount])
        assert fields == {"mounts./w": f"bind {place} (read-only)"}
        assert not hidden


@pytest.mark.parametrize(
    ("keys", "name"),
    [({}, "shop-main-1"), ({"container_name": "mine"}, "mine")],
)
def test_the_name(tmp_path: Path, keys: dict[str, Any], name: str) -> None:
    definition = {"image": "node", "networks": {}, **keys}
    assert desired_fields("main", definition, tmp_path, {}, "shop")[0]["name"] == name


def test_an_env_file_is_found_before_the_folder_is_there(tmp_path: Path) -> None:
    """As Compose does, which puts paths together before it opens them."""
    (tmp_path / "one.env").write_text("A=s3cret\n")
    fields, hidden = fields_of(tmp_path / "not-made-yet", env_file=[{"path": "../one.env"}])
    assert fields == {"env.A": "s3cret"}
    assert hidden == {"env.A"}


def test_env_files(tmp_path: Path) -> None:
    (tmp_path / "one.env").write_text("A=1\nB=1\nC=1\nSECRET\nNOT_THERE\nEMPTY=\n")
    (tmp_path / "two.env").write_text("B=2\nC=2\n")
    fields, hidden = fields_of(
        tmp_path,
        env_file=[{"path": "./one.env"}, {"path": "${WHICH:-two}.env"}],
        environment={"C": "3"},
    )
    assert fields == {
        "env.A": "1",
        "env.B": "2",
        "env.C": "3",
        "env.EMPTY": "",
        "env.SECRET": "s3cret",
    }
    assert hidden == {"env.A", "env.B", "env.EMPTY", "env.SECRET"}, "what dual.yaml spells is not"
