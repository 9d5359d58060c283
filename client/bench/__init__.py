"""How fast a served model answers, honestly measured.

Nouns: *closed loop* (so many clients, each waits for its answer), *open loop* (requests arrive whether or not earlier ones
are answered; latency counts from when a request was meant to be sent), *level* (one concurrency or rate, repeated until
it is stable).
"""
