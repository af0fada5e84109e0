"""Hostile input: what a dual.yaml may do to what is rendered from it, which is nothing.

Inputs come from :mod:`tests.fuzz.mutate` (mutations of ``corpus/``) and
:mod:`tests.fuzz.strategies` (hypothesis); :mod:`tests.fuzz.oracle` says what must hold of each,
:mod:`tests.fuzz.external` what the real Compose and the real Traefik make of them.
``python -m tests.fuzz`` (``make fuzz``) runs them by the ten thousand.
"""
