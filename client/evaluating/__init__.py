"""How good a served model is: labelled pictures are sent to it, one by one, and its answers are counted.

Nouns: *sample* (seeded, without replacement), *endpoint* (who is asked, and in which protocol), *evaluation* (accuracy
with its interval, confusion, latencies).
"""
