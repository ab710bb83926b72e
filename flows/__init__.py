"""When it is done: the command line, settings, wiring, and the Prefect flows.

`pipeline` is the way of the data on one screen; `wiring` puts engines, store and ledger behind it; `catalog` makes
Prefect flows of it; `cli` is the command line.
"""
