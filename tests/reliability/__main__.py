"""`scripts/prove`: run proofs, one line each; exit status 1 when a promise did not hold."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict

import click

from tests.reliability import results
from tests.reliability.promise import Impossible, Outcome, Promise, Scale, all_promises, load_proof

LONGEST = 3600.0  # seconds that a proof may take
LINES = 60  # of what a failed proof and its servers said, that are shown


@click.command()
@click.argument("names", nargs=-1)
@click.option("--short", "scale", flag_value="short", help="The forms that the tests run.")
@click.option("--long", "scale", flag_value="long", help="The forms that docs/reliability.md tells of (default).")
@click.option("--write", is_flag=True, help="Keep the figures, and write docs/reliability.md and README's summary.")
@click.option("--list", "listing", is_flag=True, help="Only list the promises.")
@click.option("--only", is_flag=True, hidden=True, help="Run one proof here, and print its outcome as JSON.")
def main(names: tuple[str, ...], scale: str | None, write: bool, listing: bool, only: bool) -> None:
    """Try to break what docs/reliability.md promises. Without names but with a scale: everything."""
    promises = {promise.name: promise for promise in all_promises()}
    if unknown := set(names) - set(promises):
        raise click.UsageError(f"no proof is called {', '.join(sorted(unknown))}")
    chosen = Scale(scale or "long")
    if only:
        print(json.dumps(asdict(run_proof(names[0], chosen))))
        return
    if not listing and (names or scale):
        held = run_all([promises[name] for name in names] or list(promises.values()), chosen, write)
        if write:
            results.write_pages(list(promises.values()))
        sys.exit(not held)
    if write:
        results.write_pages(list(promises.values()))
        return
    for promise in promises.values():
        print(f"{promise.number:2} {promise.name:10} {promise.text}")


def run_all(promises: list[Promise], scale: Scale, write: bool) -> bool:
    """Run proofs in turn, those that may run beside the others meanwhile; whether every promise held."""
    held = True

    def report(promise: Promise, outcome: Outcome, seconds: float) -> None:
        nonlocal held
        held &= outcome.ok
        if write:
            results.save_result(promise.name, outcome.figure, outcome.ok, scale, seconds)
        said = "ok" if outcome.ok else "FAILED"
        print(f"{promise.number:2} {promise.name:10} {said:6} {seconds:5.0f} s  {outcome.figure}", flush=True)

    beside: list[tuple[Promise, Future[tuple[Outcome, float]]]] = []
    with ThreadPoolExecutor() as pool:
        for promise in promises:
            if promise.beside:
                beside.append((promise, pool.submit(run_apart, promise, scale)))
        for promise in promises:
            if not promise.beside:
                report(promise, *run_apart(promise, scale))
        for promise, running in beside:
            report(promise, *running.result())
    return held


def run_apart(promise: Promise, scale: Scale) -> tuple[Outcome, float]:
    """Run a proof in a process of its own, whose memory and open files are nobody else's."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.reliability", "--only", f"--{scale.value}", promise.name]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
        said = ended.stdout.strip().splitlines()
        outcome = Outcome(**json.loads(said[-1])) if said else Outcome(f"ended with {ended.returncode}", False)
        if not outcome.ok:
            print(*said[:-1], *ended.stderr.splitlines()[-LINES:], sep="\n", file=sys.stderr, flush=True)
    except subprocess.TimeoutExpired:
        outcome = Outcome(f"not done within {LONGEST:.0f} s", False)
    return outcome, time.monotonic() - began


def run_proof(name: str, scale: Scale) -> Outcome:
    """Run a proof here. What it raises is a failure, and so is what this machine cannot do."""
    try:
        return load_proof(name).run(scale)
    except Impossible as error:
        return Outcome(f"cannot be tried here: {error}", False)
    except Exception as error:
        traceback.print_exc()
        return Outcome(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", False)


if __name__ == "__main__":
    main()
