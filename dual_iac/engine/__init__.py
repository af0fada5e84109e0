"""The edge: Docker, through python-on-whales and the docker command line.

:mod:`observe` tells what is, :mod:`docker` carries out one thing at a time,
:mod:`foreground` hands the terminal to a docker command.
"""
