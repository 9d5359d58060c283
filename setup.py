"""What pyproject.toml cannot say: `FAIRWAY_COMPILE=1 pip install .` compiles the proxy's data path with mypyc.

Without the variable nothing is compiled, and neither mypy nor a C compiler is needed (docs/decisions/0015).
"""

import os

from setuptools import setup

COMPILED = (
    "client/balancing/hashed",
    "client/balancing/least_loaded",
    "client/balancing/peak_ewma",
    "client/balancing/round_robin",
    "client/candidates",
    "client/pool",
    "client/resolver",
    "client/upstream",
    "proxy/accounts",
    "proxy/chunks",
    "proxy/connection",
    "proxy/exchange",
    "proxy/forward",
    "proxy/head",
    "proxy/holding",
    "proxy/links",
    "proxy/listener",
    "proxy/metrics",
    "proxy/pages",
    "proxy/pipes",
    "proxy/reactor",
    "proxy/reply",
    "proxy/route",
    "proxy/server",
    "proxy/server_timing",
    "proxy/stream",
    "proxy/tls_stream",
    "proxy/tunnel",
    "proxy/upload",
)

if os.environ.get("FAIRWAY_COMPILE") == "1":
    try:
        from mypyc.build import mypycify
    except ImportError:
        setup(setup_requires=["mypy>=1.18"])  # told to who builds, and asks first what that takes
        raise
    # Only what is compiled is judged here; what it imports need not be installed.
    options = [
        "--explicit-package-bases",
        "--follow-imports=silent",
        "--ignore-missing-imports",
        "--cache-dir=build/mypy",
    ]
    sources = [f"src/fairway/{module}.py" for module in COMPILED]
    setup(ext_modules=mypycify([*options, *sources], opt_level="2", debug_level="0", target_dir="build/mypyc"))
else:
    setup()
