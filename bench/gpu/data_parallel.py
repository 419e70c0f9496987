"""Checks that each change reaches all data-parallel ranks of a real vLLM on two GPUs.

usage: python -m bench.gpu.data_parallel MODEL --python PATH --out FOLDER [--size 2] [--streams 256]
           [--limit 480] [--graphs] [--no-freeze] [--flags "MORE VLLM FLAGS"]

for example, with vLLM's packages in /tmp/site:

    PYTHONPATH=/tmp/site VLLM_USE_FLASHINFER_SAMPLER=0 HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 \\
        python -m bench.gpu.data_parallel /tmp/model --python python3 --out /tmp/out/dp

MODEL is a folder with the configuration of Llama-3.1-8B; weights are random. The program uses
``llmtop run``, ``load``, ``set`` and ``stop``. While the load runs, it makes these changes:

- It lowers and raises max_num_seqs, with and without --evict.
- It changes the token budget.
- It changes one rank alone, not through llmtop.
- It freezes one rank.

Four times a second it reads the running requests of each rank from vLLM's own /metrics, and the
limits in force from each rank's socket.

FOLDER gets ``result.json`` (written after each step), ``table.md``, the engine's log, the load's
result, and the output of each command. The program ends within --limit seconds in all cases and
leaves nothing running. The exit code is 0 when every rank followed every change.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from bench.commands import StepFailed
from bench.gpu.ranked_engine import CAP, FULL, NAME, RankedEngine, TimeIsUp
from llmtop.engines.host.rank_sockets import socket_of
from llmtop.engines.tuning.live_client import LiveClient

HOLD_S = 4.0  # how long a level is watched after it is reached


class Run(RankedEngine):
    """The steps."""

    def keep(self) -> None:
        """Write the results so far as JSON and as a table."""
        super().keep()
        (self.out / "table.md").write_text("\n".join(table(self.result)) + "\n")

    def lower(self, to: int, *, evict: bool, within_s: float) -> dict[str, Any]:
        """Lower max_num_seqs. The running requests of all ranks must fall to it and stay there."""
        # Requests that began together end together, in waves. The change must not fall between two
        # waves.
        self.until(lambda: all(n > to for n in self.running), 30)
        before, asked = self.running, self.sampler.now()
        step = {"running_before": before, **self.change(to, evict=evict)}
        self.until(lambda: all(n <= to for n in self.running), within_s)
        step["reached_s"] = self.sampler.first(asked, lambda ranks: all(n <= to for n in ranks))
        held = self.sampler.now()
        time.sleep(HOLD_S)
        after = [sample["running"] for sample in self.sampler.since(held)]
        step["running_after"] = self.running
        step["highest_after"] = [max(ranks) for ranks in zip(*after, strict=True)]
        step["caps"] = self.sampler.samples[-1]["cap"]
        followed = step["reached_s"] is not None and all(n <= to for n in step["highest_after"])
        reached = step["outcome"] == "applied" and len(step["ranks"]) == len(before)
        put_back = all(one["evicted"] > 0 for one in step["ranks"]) is evict
        return step | {"followed": followed and reached and put_back}

    def higher(self, to: int, *, within_s: float = 30.0) -> dict[str, Any]:
        """Raise max_num_seqs. All ranks must fill again, up to it or to their share of streams."""
        share = FULL * self.args.streams / self.args.size / 2
        wanted = min(0.95 * to, share)
        before, asked = self.running, self.sampler.now()
        step: dict[str, Any] = {"running_before": before, **self.change(to)}
        self.until(lambda: all(n >= wanted for n in self.running), within_s)
        step["reached_s"] = self.sampler.first(asked, lambda ranks: all(n >= wanted for n in ranks))
        time.sleep(HOLD_S)
        step["running_after"] = self.running
        step["caps"] = self.sampler.samples[-1]["cap"]
        below = all(n <= to for n in step["running_after"])
        reached = step["outcome"] in ("applied", "pending")
        return step | {"followed": step["reached_s"] is not None and below and reached}

    def budget(self, to: int) -> dict[str, Any]:
        """Change the token budget. The value in force is read from each rank's socket."""
        step = dict(self.change(to, option="max_num_batched_tokens"))
        values = [one.value for one in self.state().options["max_num_batched_tokens"].ranks]
        return step | {"values": values, "followed": values == [to] * self.args.size}

    def differ(self) -> dict[str, Any]:
        """Change the last rank alone, not through llmtop. ``options`` must show both values."""
        last = self.args.size - 1
        client = LiveClient(socket_of(self.socket, last))
        asyncio.run(client.set({"max_num_seqs": 100}, by="bench", wait_s=5))
        code, document, errors = self.llmtop("options", NAME, "--json")
        if document is None:
            raise StepFailed(errors)
        option = next(one for one in document["options"] if one["name"] == "max_num_seqs")
        shown = [one["value"] for one in option["ranks"]]
        alike = self.change(CAP)
        after = [one.value for one in self.state().options["max_num_seqs"].ranks]
        return {
            "command": f"rank {last} alone = 100",
            "exit": code,
            "shown": shown,
            "note": option["note"],
            "ranks": alike["ranks"],
            "outcome": alike["outcome"],
            "values_after": after,
            "followed": shown == [*[CAP] * last, 100] and after == [CAP] * self.args.size,
        }

    def freeze(self) -> dict[str, Any]:
        """Freeze the last rank. ``set`` must name it and change the others."""
        last = self.args.size - 1
        self.frozen = next(one.pid for one in self.state().ranks if one.rank == last)
        if self.frozen is None:
            raise StepFailed("the last rank does not report its pid")
        os.kill(self.frozen, signal.SIGSTOP)
        try:
            step = self.change(64)
        finally:
            os.kill(self.frozen, signal.SIGCONT)
            self.frozen = None
        named = step["outcome"] == "partial" and f"rank {last}" in (step["reason"] or "")
        alike = self.until(lambda: self.sampler.samples[-1]["cap"] == [64] * self.args.size, 20)
        return dict(step) | {"alike_after_s": alike, "followed": named and step["exit"] == 1}

    def steps(self) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """All steps in order. Each leaves the engine under load."""
        yield "lower with eviction", lambda: self.lower(16, evict=True, within_s=20)
        yield "raise", lambda: self.higher(CAP)
        yield "lower without eviction", lambda: self.lower(16, evict=False, within_s=90)
        yield "raise half way", lambda: self.higher(48)
        yield "lower again with eviction", lambda: self.lower(32, evict=True, within_s=20)
        yield "raise to the launch value", lambda: self.higher(CAP)
        yield "token budget down", lambda: self.budget(2048)
        yield "token budget back", lambda: self.budget(self.launch_budget())
        yield "one rank alone", self.differ
        if not self.args.no_freeze:
            yield "one rank frozen", self.freeze
            yield "restore", lambda: self.higher(CAP)

    def launch_budget(self) -> int:
        """The token budget that the ranks were launched with."""
        return self.state().options["max_num_batched_tokens"].launch


def table(result: dict[str, Any]) -> list[str]:
    """The steps as Markdown."""
    size = result["size"]
    lines = [
        f"### max_num_seqs on {size} data-parallel ranks, {result['streams']} streams",
        "",
        "| step | change | outcome | put back by rank | running before | after | reached | ok |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for step in result["steps"]:
        if "error" in step:
            lines.append(f"| {step['step']} | | error: {step['error']} | | | | | no |")
            continue
        took = len([one for one in step["ranks"] if one["outcome"] == "applied"])
        reached = step.get("reached_s")
        lines.append(
            f"| {step['step']} | {step['command']} "
            f"| {step['outcome']} on {took} of {len(step['ranks'])} "
            f"| {sides(one['evicted'] for one in step['ranks'])} "
            f"| {sides(step.get('running_before', []))} | {sides(step.get('running_after', []))} "
            f"| {'' if reached is None else f'{reached:.2f} s'} "
            f"| {'yes' if step['followed'] else 'no'} |"
        )
    if "load" in result:
        requests = result["load"]["requests"]
        lines += ["", f"{requests['ok']} requests ended well, {requests['failed']} failed."]
    return lines


def sides(values: Any) -> str:
    """``16 / 16``."""
    return " / ".join(f"{value:.0f}" for value in values)


def main() -> int:
    """Run all steps within the time limit. Writes the results after each. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--python", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, default=2)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--limit", type=int, default=480, help="seconds for all steps")
    parser.add_argument("--graphs", action="store_true", help="with compilation and CUDA graphs")
    parser.add_argument("--no-freeze", action="store_true", help="freeze no rank")
    parser.add_argument("--flags", default="", help="more flags of vLLM, as one argument")
    parser.add_argument(
        "--load-flags", default="", help="more flags of llmtop load, as one argument"
    )
    args = parser.parse_args()
    args.out = args.out.absolute()
    args.out.mkdir(parents=True, exist_ok=True)

    def up(_: int, __: FrameType | None) -> None:
        raise TimeIsUp

    for number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(number, up)
    signal.alarm(args.limit)
    run = Run(args)
    try:
        run.start()
        for name, step in run.steps():
            try:
                found = step()
            except Exception as error:  # the next steps still run
                found = {"error": f"{type(error).__name__}: {error}", "followed": False}
            run.result["steps"].append({"step": name, **found})
            run.keep()
            print(f"{name}: {'followed' if found['followed'] else found}", flush=True)
    except Exception as error:  # after any error the results are kept and all processes end
        run.result["error"] = f"{type(error).__name__}: {error}"
        print(run.result["error"], flush=True)
    except TimeIsUp:
        run.result["error"] = f"not within {args.limit} s"
        print(run.result["error"], flush=True)
    finally:
        signal.alarm(0)
        run.end()
    print("\n".join(table(run.result)))
    steps = run.result["steps"]
    return int("error" in run.result or not steps or not all(step["followed"] for step in steps))


if __name__ == "__main__":
    sys.exit(main())
