"""dual-iac: parallel development workspaces as code.

The flow, and where each step lives::

    dual.yaml ─ spec.load_project ─▶ Project ─ render.render ─▶ Desired ─┐
                                                                         ├─ plan.make_plan ─▶ Plan ─ apply.apply_plan
                                       engine ─ observe ─▶ Observed ─────┘
"""

__version__ = "0.1.0"
