"""dual-iac: parallel development workspaces as code.

The flow, and where each step lives::

    dual.yaml ─ load_project ─▶ Project ─ render ─▶ Desired ─┐
                                                             ├─ make_plan ─▶ Plan ─ apply_plan
                               engine ─ observe ─▶ Observed ─┘
"""

__version__ = "0.1.0"
