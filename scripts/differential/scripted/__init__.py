"""Sessions written down, one behaviour each; every function of these modules with a session in it is one."""

from . import configs, groups, logs, offsets, producers, protocol, server_groups, topics, transactions

MODULES = [protocol, topics, logs, producers, offsets, groups, configs, transactions, server_groups]


def sessions():
    """Names and functions, in the order in which they are written."""
    for module in MODULES:
        short = module.__name__.rsplit(".", 1)[-1]
        for function in module.SESSIONS:
            yield f"{short}: {function.__name__.replace('_', ' ')}", function
