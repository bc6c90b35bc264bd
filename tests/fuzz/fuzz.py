"""Read thousands of bad files, and expect of each one line or a right result.

    python tests/fuzz/fuzz.py --count 10000 --jobs 2 --seed 0
    python tests/fuzz/fuzz.py --only 1234 --seed 0        # one attempt, with what it prints

Each attempt changes a good file (mutations.py) and runs the command that reads it
(targets.py) in a process of its own. It passes if the command ends with a known exit code
and at most one line on stderr, within 10 seconds of processor time and three times the
memory of a process that reads good files; if it prints nothing that a terminal would
obey; and if a run that could be resumed ends with the model of an undisturbed run.
Attempt number i with a seed is always the same.
"""

import argparse
import collections
import contextlib
import functools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import unicodedata
from collections.abc import Callable
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

SECONDS = 10  # of processor time
HANGS_AFTER = 60  # seconds of real time
TIMES_MEMORY = 3
ADDRESS_SPACE = 4 << 30  # more than a good file needs; it only protects the machine
CODES = (0, 1, 2)
# Targets whose changes can do no harm to a run that is resumed all the same. (A checkpoint
# with other weights and the right checksum is another checkpoint.)
EXACT = ("config", "metrics", "tricks")


def in_child(call: Callable[[], int]) -> int:
    """Call in a child process, which ends with its exit code; return the child's number.

    Children keep this process small, whose memory all later ones start with.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        code = call()
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def read_files(arguments: list[str], output: Path) -> int:
    """Run the command with limits, and with its output in files."""
    from numpyvit.cli.main import main

    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT), descriptor)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CPU, (2 * SECONDS, 2 * SECONDS))
    return main(arguments)


def run_command(arguments: list[str], output: Path) -> tuple[int, float, int]:
    """Run the command in a child process  ->  exit code, processor seconds, peak kilobytes.

    The exit code is minus the signal that ended it; -9 if it hung.
    """
    child = in_child(lambda: read_files(arguments, output))
    deadline = time.monotonic() + HANGS_AFTER
    wait = 0.001
    while True:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(wait)
        wait = min(0.02, 2 * wait)
    code = os.waitstatus_to_exitcode(status)
    return code, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def problems(code: int, seconds: float, memory: int, most: float, out: str, err: str) -> list[str]:
    """Return what is wrong with the outcome of an attempt."""
    from numpyvit import errors

    found = []
    if code not in CODES:
        last = err.strip().splitlines()[-1:] or [""]
        found.append(f"exit code {code}: {last[0][:200]}")
    elif len(err.splitlines()) > 1 or (code == 2 and not err.startswith("numpyvit: error: ")):
        found.append(f"stderr is not one line: {err[:300]!r}")
    elif code == 0 and err and not err.startswith("classified by the packaged model"):
        found.append(f"stderr of a success: {err[:300]!r}")
    if seconds > SECONDS:
        found.append(f"{seconds:.1f} s")
    if memory > most:
        found.append(f"{memory:,} kB of memory, allowed {most:,.0f}")
    # What outside text may contain is decided in errors.printable.
    if hasattr(errors, "printable") and code in CODES and any(map(is_control, out + err)):
        found.append(f"control characters: {(out + err)[:300]!r}")
    return found


def is_control(c: str) -> bool:
    """Return whether a terminal may obey this character."""
    return c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")


def attempt(targets, i: int, seed: int, root: Path, most: float, show: bool = False) -> dict:
    """Make one attempt, and return what happened."""
    folder, output = root / f"attempt{i}", root / f"output{i}"
    folder.mkdir()
    output.mkdir()

    def draw() -> int:
        drawn = targets.draw(folder, random.Random(f"{seed} {i}"))
        (output / "drawn").write_text(json.dumps(drawn))
        return 0

    if os.waitpid(in_child(draw), 0)[1]:
        return {
            "i": i,
            "target": "?",
            "code": 0,
            "seconds": 0,
            "memory": 0,
            "problems": ["drawing"],
        }
    name, arguments = json.loads((output / "drawn").read_text())
    code, seconds, memory = run_command(arguments, output)
    out, err = ((output / part).read_text(errors="replace") for part in ("out", "err"))
    if show:
        print(arguments, "\n", out, err)
        print(f"files are kept in {folder}")
    wrong = problems(code, seconds, memory, most, out, err)
    if name in EXACT and code == 0 and arguments[1] == "--resume":
        models = [(run / "model.npz").read_bytes() for run in (folder / "run", root / "resumed")]
        if models[0] != models[1]:
            wrong.append("the run has been resumed and ended with another model")
    if not show:
        shutil.rmtree(folder)
        shutil.rmtree(output)
    return {
        "i": i,
        "target": name,
        "code": code,
        "seconds": seconds,
        "memory": memory,
        "problems": wrong,
    }


def work(args: argparse.Namespace, numbers: list[int], report: Path) -> int:
    """Make these attempts, and write the outcomes into a file, one a line."""
    import mutations
    import targets

    import numpyvit.cli.main
    import numpyvit.look.pictures  # noqa: F401    the children need not import it

    for size in mutations.BOMBS:
        mutations.bomb(size)
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    root = Path(tempfile.mkdtemp(dir=base, prefix="numpyvit-fuzz-"))
    try:
        made = targets.Targets(root)
        (root / "o").mkdir()
        shutil.copytree(root / "run", root / "resumed")
        best = 0
        for arguments in (
            ["predict", str(root / "model.npz"), *map(str, made.good_pictures)],
            ["evaluate", str(root / "run")],
            ["train", "--resume", str(root / "resumed"), "--workers", "1"],
        ):
            code, _, memory = run_command(arguments, root / "o")
            assert code == 0, (root / "o" / "err").read_text()
            best = max(best, memory)
        with open(report, "w") as f:
            f.write(json.dumps({"good": best}) + "\n")
            for i in numbers:
                found = attempt(
                    made, i, args.seed, root, TIMES_MEMORY * best, args.only is not None
                )
                f.write(json.dumps(found) + "\n")
                f.flush()
                if found["problems"]:
                    print(
                        f"attempt {i} ({found['target']}): {'; '.join(found['problems'])}",
                        flush=True,
                    )
        return 0
    finally:
        if args.only is None:
            shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    """Make all attempts in several processes; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", type=int, help="make this attempt only, and keep its files")
    args = parser.parse_args()
    numbers = list(range(args.count)) if args.only is None else [args.only]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        reports = [Path(folder, str(job)) for job in range(args.jobs)]
        children = []
        for job, report in enumerate(reports):
            part = numbers[job :: args.jobs]
            children.append(in_child(functools.partial(work, args, part, report)))
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        rows = [
            json.loads(line) for r in reports if r.exists() for line in r.read_text().splitlines()
        ]
    print(f"{time.monotonic() - start:.0f} s")
    failed = summarise(rows)
    return int(failed or any(codes) or len(rows) < len(numbers) + args.jobs)


def summarise(rows: list[dict]) -> bool:
    """Print a line for each target, and return whether an attempt failed."""
    good = max((row["good"] for row in rows if "good" in row), default=0)
    rows = [row for row in rows if "i" in row]
    failed = sum(bool(row["problems"]) for row in rows)
    print(f"{len(rows):,} attempts, {failed} failed; good files need {good:,} kB of memory")
    print(f"{'target':12}{'attempts':>9}{'longest':>10}{'memory':>13}   exit codes")
    for target in sorted({row["target"] for row in rows}):
        of = [row for row in rows if row["target"] == target]
        codes = dict(sorted(collections.Counter(row["code"] for row in of).items()))
        seconds = max(row["seconds"] for row in of)
        memory = max(row["memory"] for row in of)
        print(f"{target:12}{len(of):9,}{seconds:8.1f} s{memory:10,} kB   {codes}")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
