"""Usage: limit.py PHOTOS SECONDS THREADS   What no server can beat: threads that decode and infer, without a network.

PHOTOS: a file with one path a line. Says one line of JSON: images, seconds, cpu_seconds, resident (bytes).
"""

import itertools
import json
import resource
import sys
import threading
import time
from pathlib import Path

from model import answer, decoded, loaded

photos = [Path(line).read_bytes() for line in Path(sys.argv[1]).read_text().splitlines()]
seconds, threads = float(sys.argv[2]), int(sys.argv[3])
model, turns, counts = loaded(), itertools.count(), [0] * threads
for photo in photos[:8]:
    answer(model(decoded(photo))[0])


def work(place: int) -> None:
    while time.perf_counter() < until:
        answer(model(decoded(photos[next(turns) % len(photos)]))[0])
        counts[place] += 1


began, spent = time.perf_counter(), time.process_time()
until = began + seconds
running = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
for thread in running:
    thread.start()
for thread in running:
    thread.join()
said = {
    "images": sum(counts),
    "seconds": time.perf_counter() - began,
    "cpu_seconds": time.process_time() - spent,
    "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}
print(json.dumps(said))
