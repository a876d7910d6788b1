"""The worker as a process: it ends gracefully, another goes on, it tells how it is, and its logs can be searched."""

import json
import urllib.error
import urllib.request

from harness import Lab, until


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:  # a worker that is not ready yet answers 503
        return error.code, error.read().decode()


async def test_graceful_end_and_another_goes_on(lab: Lab) -> None:
    """Told to stop in the middle of a rollout a worker ends with 0; another finishes it within the budget."""
    first = lab.worker(SEGUE_LOG_FORMAT="json")

    def served_at() -> str:
        for line in first.log.read_text().splitlines():
            entry = json.loads(line)
            if entry["message"] == "worker serves":
                return str(entry["health"])
        return ""

    address = await until("it serves", served_at)
    assert get(address, "/healthz") == (200, "ok\n")
    await until("it is ready", lambda: get(address, "/readyz") == (200, "ready\n"))
    # A version that cannot be pulled for a while: a line of log with the rollout's id comes from a refused retarget.
    async with lab.case("chat", 6) as case:
        await case.run.until("2 moves", lambda s: s.moves >= 2)
        try:
            await case.run.send("retarget", change={"images": {"nobody": "a/b:1"}})
        except Exception as error:
            assert "nobody" in str(error.__cause__)
        status, metrics = get(address, "/metrics")
        assert status == 200 and "segue_writes_total" in metrics and "segue_moves_waiting" in metrics
        moves = (await case.run.status()).moves
        assert first.stop() == 0
        lab.worker()
        report = await case.ends("Completed")
        assert report.status.moves > moves
    case.watcher.assert_within(6, 7)
    lines = [json.loads(line) for line in first.log.read_text().splitlines()]
    about = [line for line in lines if line.get("rollout") == case.run.handle.id]
    assert about and all(line["run"] for line in about)
    told = [line["message"] for line in lines if line["logger"] == "segue.worker"]
    assert (told[0], told[-1]) == ("worker serves", "worker stops"), "a busy machine adds warnings between them"
