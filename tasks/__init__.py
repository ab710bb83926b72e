"""What is done: one module a step, in the order of the data; each is plain typed functions, record → record.

    ingest → shots → transcribe → speakers → languages    once per episode
    translate → synthesize → mix                          once per language
    plan → generate → assemble → inspect → publish        once per language

Besides: `step` (recipes, reuse, provenance, Prefect tasks), `ledger` (the database), `store` (artifacts), `media`
(ffmpeg and PyAV). Step modules do not import each other.
"""
