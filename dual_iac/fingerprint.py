"""What a plan is bound to, in a form that can be kept and compared: has anything moved since?

A fingerprint is a map of addresses to flat maps of text. It holds no value that may be a secret:
variables come in as their names, containers by their ids.
"""

from __future__ import annotations

from collections.abc import Mapping

from dual_iac.state import PROXY, Desired, Observed, ObservedContainer, digest

Fingerprint = Mapping[str, Mapping[str, str]]

_SETTINGS = ("name", "restart", "resources.", "networks.")
"""The fields that can change on a container that stays the same."""


def desired_fingerprint(desired: Desired) -> Fingerprint:
    """What dual.yaml declares, address by address."""
    addresses = {path: address for address, path in desired.routes.items()}
    return {
        **{address: {"declared": each.hash} for address, each in desired.containers.items()},
        **{address: {"declared": each.hash} for address, each in desired.networks.items()},
        **{
            addresses.get(path, f"file.{path}"): {"declared": digest(text)}
            for path, text in desired.files.items()
        },
    }


def observed_fingerprint(observed: Observed, desired: Desired | None = None) -> Fingerprint:
    """What there is, address by address; with ``desired``, also what images it would run."""
    fingerprint: dict[str, dict[str, str]] = {
        **{address: _container(each) for address, each in observed.containers.items()},
        **{address: {"network": each.id[:12]} for address, each in observed.networks.items()},
        **{f"file.{path}": {"text": digest(text)} for path, text in observed.files.items()},
    }
    if observed.routes_seen is not None:
        fingerprint.setdefault(PROXY, {})["routes"] = observed.routes_seen
    for address, container in desired.containers.items() if desired else ():
        if image := observed.images.get(container.image):
            fingerprint.setdefault(address, {})["image"] = image.id
    return fingerprint


def _container(container: ObservedContainer) -> dict[str, str]:
    settings = {
        field: value for field, value in container.fields.items() if field.startswith(_SETTINGS)
    }
    return {
        "container": container.id[:12],
        "state": "running" if container.is_up else container.state,
        "settings": digest(settings),
    }


_SAID = {
    "declared": ("not declared then", "not declared any more", "declared otherwise now"),
    "container": ("had no container then", "its container is gone", "has another container now"),
    "settings": ("", "", "its name, limits or networks were changed"),
    "network": ("had no network then", "its network is gone", "has another network now"),
    "image": ("had no image then", "its image is gone", "its image is another one now"),
    "routes": (
        "the proxy has read its routes now",
        "the proxy has read no routes now",
        "the proxy has read other routes now",
    ),
    "text": ("not there then", "gone now", "edited since"),
}
"""What to say of a key that is new, gone, or differs. A state speaks for itself."""


def moved(before: Fingerprint, after: Fingerprint) -> list[str]:
    """What differs between two fingerprints, a line an address, in their order."""
    return [
        f"{address}: {_said(before.get(address, {}), after.get(address, {}))}"
        for address in sorted({*before, *after})
        if before.get(address) != after.get(address)
    ]


def _said(was: Mapping[str, str], now: Mapping[str, str]) -> str:
    key = next(key for key in {**was, **now} if was.get(key) != now.get(key))
    if key == "state":
        return f"{was[key]} then, {now[key]} now"
    new, gone, other = _SAID[key]
    return new if key not in was else gone if key not in now else other
