"""Nouns: records, tables, time, errors and the ports that engines are plugged into.

Where do I go to …
    change what a step hands to the next      records.py
    change what the database remembers        tables.py, then migrations/
    change what a catalog file may say        catalog.py
    plug in another engine                    ports.py (the contract), engines/ (one adapter each)
    pin another set of weights                models.lock, weights.py
"""
