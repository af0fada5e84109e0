"""Do two of those that share a workspace's localhost listen on one port?"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from dual_iac.errors import DualError
from dual_iac.model import HOLDER, WORKSPACE_PORT
from dual_iac.state import LABEL_PORT, Desired, ObservedImage, workspace_address, workspace_of


def port_clashes(
    desired: Desired, images: Mapping[str, ObservedImage], workspaces: Collection[str]
) -> dict[str, DualError]:
    """Those of these ``workspaces`` where they do, by address, as far as ``images`` are known.

    A companion listens where dual.yaml says (``port``), else on what its image exposes.
    """
    owners: dict[tuple[str, int], str] = {}
    clashes: dict[str, DualError] = {}
    for address, container in sorted(desired.containers.items()):
        if not address.startswith("companion.") or address.endswith(f"/{HOLDER}"):
            continue
        workspace, name = workspace_of(address), f"the service {address.partition('/')[2]}"
        if workspace not in workspaces:
            continue
        declared = container.fields.get(f"labels.{LABEL_PORT}")
        image = images.get(container.image)
        exposed = image.ports if image else frozenset[int]()
        owners.setdefault((workspace, WORKSPACE_PORT), f"workspace {workspace} itself")
        for port in sorted({int(declared)} if declared else exposed):
            owner = owners.setdefault((workspace, port), name)
            if owner != name:
                clashes.setdefault(
                    workspace_address(workspace),
                    DualError(
                        f"{owner[0].upper()}{owner[1:]} and {name} both listen on port {port}",
                        why=f"they share the localhost of {workspace}, and the image of the "
                        "service says so",
                        mend="have one of them listen elsewhere, and say where with port:",
                    ),
                )
    return clashes
