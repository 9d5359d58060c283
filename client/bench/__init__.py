"""How fast a served model answers, honestly measured.

Nouns: *closed loop* (so many clients, each waits for its answer), *open loop* (requests arrive whether or not earlier ones
are answered; latency counts from when a request was meant to be sent), *way* (a URL and a manner: address, forward or
redirect), *level* (one concurrency or rate by one way, repeated until it is stable), *window* (one of these times) and its
*tally*.
"""
