"""A Prometheus that answers the queries of a poll from pages given by a test."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, field

from llmtop.fleet.faults import PrometheusError
from llmtop.fleet.promql import Sample

Page = Mapping[str, float]  # series as text, such as 'a{b="c"}' without the target's labels

NAMES = (
    *("values", "buckets", "up", "scraped_at", "scrape_s"),
    *("started", "gpus", "remembered"),
)


class Scraped(Struct):
    """One target's last scrape."""

    page: Page
    up: bool = True
    at: float | None = None
    took_s: float = 0.01
    labels: Mapping[str, str] = field(default_factory=dict)


class FakePrometheus(Struct):
    """moments: what was scraped, by instance, in the order in which the moments are asked for; the
    last one stays."""

    moments: list[dict[str, Scraped]]
    errors: dict[tuple[str, str], str] = field(default_factory=dict)
    down: bool = False
    asked: list[str] = field(default_factory=list)
    gpus: list[Sample] = field(default_factory=list)
    order: tuple[str, ...] = ()
    times: list[float] = field(default_factory=list)

    async def query(self, expression: str, time: float | None = None) -> list[Sample]:
        assert time is not None
        self.asked.append(expression)
        if self.down:
            raise PrometheusError("Prometheus at test did not answer within 10 s", "wait")
        name = NAMES[self.order.index(expression)]
        now = self._now(time)
        found: list[Sample] = []
        for instance, scraped in now.items():
            target = {"job": "vllm", "instance": instance, **scraped.labels}
            at = scraped.at if scraped.at is not None else time
            if name == "up":
                found.append(Sample({"__name__": "up", **target}, float(scraped.up)))
            elif name == "scraped_at":
                found.append(Sample(target, at))
            elif name == "scrape_s":
                found.append(
                    Sample({"__name__": "scrape_duration_seconds", **target}, scraped.took_s)
                )
            elif name == "gpus":
                return self.gpus
            else:
                found += self._series(name, scraped, target)
        return found

    async def scrape_errors(self) -> dict[tuple[str, str], str]:
        return self.errors

    def _now(self, time: float) -> dict[str, Scraped]:
        if time not in self.times:
            self.times.append(time)
        times = sorted(self.times)
        return self.moments[min(times.index(time), len(self.moments) - 1)]

    @staticmethod
    def _series(name: str, scraped: Scraped, target: Mapping[str, str]) -> list[Sample]:
        if not scraped.up and name != "remembered":
            return []
        found = []
        for text, value in scraped.page.items():
            sample, _, rest = text.partition("{")
            pairs = [pair.split("=") for pair in rest.rstrip("}").split(",") if pair]
            labels = {key: value.strip('"') for key, value in pairs}
            of_bucket = sample.endswith(("_bucket", "_sum"))
            start = sample == "process_start_time_seconds"
            wanted = {
                "values": not of_bucket and not start,
                "buckets": of_bucket,
                "started": start,
                "remembered": sample == "vllm:num_requests_running",
            }
            if wanted[name]:
                found.append(Sample({"__name__": sample, **labels, **target}, value))
        return found
