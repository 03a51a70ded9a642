# Common tasks; `just --list` tells them.

# The simulated flight on the default bundle, with a broker of its own
demo:
    cargo run --release -- demo

# Installs what the tests need and runs them
test *args:
    tests/run {{args}}

# What CI runs
ci:
    .ci/run

# A flapping link for ten minutes: nothing lost, memory and files flat
soak seconds="600":
    REMOTECLIPD_SOAK_S={{seconds}} cargo test --release --test delivery soak -- --nocapture

lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# Licences, advisories and sources (cargo install cargo-deny)
deny:
    cargo deny check

# The model tools' own tests, in a virtual environment with torch (several GB)
test-models:
    python3 -m venv target/models-venv
    target/models-venv/bin/pip install -q -r models/tools/requirements.txt
    target/models-venv/bin/pytest models/tools/tests

# Our metrics against PyPI's clip_benchmark, in a virtual environment with torch (several GB)
test-metrics:
    python3 -m venv target/metrics-venv
    target/metrics-venv/bin/pip install -q -r tests/peer_metrics.txt
    target/metrics-venv/bin/pip install -q --no-deps clip-benchmark==1.6.2
    REMOTECLIPD_PYTHON=target/metrics-venv/bin/python cargo test --test eval metrics_are_clip_benchmarks -- --nocapture
