"""``python -m tests.chaos``: the long form. Says what was killed; fails if anything is lost or doubled."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.driver import BROKERS, Chaos


def main() -> None:
    """Run as often as was asked for, each time with another seed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="how often (default: 20)")
    parser.add_argument("--events", type=int, default=20_000, help="results wanted a run (default: 20000)")
    parser.add_argument("--kills", type=int, default=30, help="processes killed a run (default: 30)")
    parser.add_argument("--broker", choices=BROKERS, default=BROKERS[0], help="which (default: nats)")
    parser.add_argument("--seed", type=int, help="of the first run, to repeat it; each further one adds 1")
    asked = parser.parse_args()
    first = random.randrange(1_000_000) if asked.seed is None else asked.seed
    failed = 0
    for seed in range(first, first + asked.runs):
        with tempfile.TemporaryDirectory(prefix="torpor-chaos-") as folder:
            run = Chaos(Path(folder), seed=seed, total=asked.events, kills=asked.kills, broker=asked.broker)
            outcome = run.run()
        killed = ", ".join(f"{number} {name}" for name, number in sorted(outcome.killed.items()))
        print(
            f"seed {seed}: {outcome.events} events, {outcome.outcomes} results in {outcome.seconds:.0f} s; "
            f"killed {killed}; {len(outcome.faults)} faults",
            flush=True,
        )
        for fault in outcome.faults[:20]:
            print(f"  {fault}", flush=True)
        failed += bool(outcome.faults)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
