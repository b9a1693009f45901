"""Stands in for spark-submit: notes how it was called and ends as it is told to.

``plan.json`` beside it maps a run id and a stage or job to the ends of its calls, one after the other; one that is not
there is done. An end is ``[exit code, what the record says]``; null leaves the record alone, as a killed job does.
"""

import json
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
words = sys.argv[1:]
script = next(number for number, word in enumerate(words) if word.endswith(".py"))
given = dict(word.removeprefix("--").split("=", 1) for word in words[script + 1 :] if "=" in word)
with (here / "calls.jsonl").open("a") as file:
    file.write(json.dumps({"spark": words[:script], "script": words[script], "arguments": words[script + 1 :]}) + "\n")

plan = json.loads((here / "plan.json").read_text())
step = given.get("stage") or Path(words[script]).stem
ends = plan.get(f"{given['run-id']} {step}", [])
code, verdict = ends.pop(0) if ends else (0, {"status": "running", "exit_code": 0, "message": ""})
(here / "plan.json").write_text(json.dumps(plan))
record = Path(given["workdir"], "runs", f"{given['run-id']}.json")
record.parent.mkdir(parents=True, exist_ok=True)
if verdict is not None:
    verdict["started_at"] = len((here / "calls.jsonl").read_text().splitlines())
    stages = json.loads(record.read_text())["stages"] if record.exists() else []
    if step == "publish" and code == 0:
        stages.append({"name": "publish", "result": {"status": "live"}})
    record.write_text(json.dumps({"stages": stages, **verdict}))
sys.exit(code)
