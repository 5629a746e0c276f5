"""SDV's CTGAN or TVAE on Adult, measured once a machine: `python -m tests.benchmarks.sdv_baseline ctgan`.

The result is kept under `.benchmarks`, named by what it depends on: processor, versions, data.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from tests.benchmarks import adult, judging

ROOT = Path(__file__).parents[2]
KEPT = ROOT / ".benchmarks"
FORM = 2  # of what is kept; 2: with what `judging` measures
PEERS = ("ctgan", "tvae")
EPOCHS = 300
CONDITIONS = {
    "doctorate": ({"education": "Doctorate"}, 200),
    "germany": ({"native-country": "Germany"}, 200),
    "doctorate_black": ({"education": "Doctorate", "race": "Black"}, 200),
}


def machine() -> dict[str, str]:
    """What a timing depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("sdv", "ctgan", "rdt", "torch", "numpy", "sdmetrics")},
    }


def kept_at(family: str, data: Path) -> Path:
    digest = hashlib.sha256(data.read_bytes()).hexdigest()
    about = json.dumps({**machine(), "data": digest, "epochs": EPOCHS, "form": FORM})
    return KEPT / f"sdv-{family}-{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"


def baseline(family: str, data: Path) -> dict[str, Any]:
    """Return SDV's figures, measured now where this machine has none yet."""
    path = kept_at(family, data)
    if not path.exists():
        command = [sys.executable, "-m", "tests.benchmarks.sdv_baseline", family]
        subprocess.run(command, check=True, cwd=ROOT)
    return dict(json.loads(path.read_text()))


def measure(family: str) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    import torch
    from sdv.metadata import Metadata
    from sdv.sampling import Condition
    from sdv.single_table import CTGANSynthesizer, TVAESynthesizer
    from torch.optim.optimizer import register_optimizer_step_post_hook

    made = {"ctgan": CTGANSynthesizer, "tvae": TVAESynthesizer}[family]
    table = adult.load()
    tables = {"adult": table.train}
    description = Metadata.detect_from_dataframes(tables)
    torch.manual_seed(0)
    synthesizer = made(description, epochs=EPOCHS)
    steps: list[float] = []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(time.perf_counter()))
    began = time.perf_counter()
    synthesizer.fit(tables)
    found: dict[str, Any] = {"machine": machine(), "epochs": EPOCHS, "fit_seconds": time.perf_counter() - began}
    hook.remove()
    found["first_step_seconds"] = steps[0] - began
    print(family, found, flush=True)
    began = time.perf_counter()
    synthetic = synthesizer.sample(num_rows=len(table.train))["adult"]
    found["first_sample_seconds"] = time.perf_counter() - began
    found.update(adult.quality(table.train, synthetic))
    found.update(adult.usefulness(synthetic, table.test))
    found.update(judging.c2st(table.test, synthetic))
    found.update(judging.closeness(table.train, table.test, synthetic))
    count = 200_000
    began = time.perf_counter()
    synthesizer.sample(num_rows=count)
    found["rows_per_second"] = count / (time.perf_counter() - began)
    for name, (values, requested) in CONDITIONS.items():
        began = time.perf_counter()
        try:
            rows = synthesizer.sample_from_conditions([Condition(num_rows=requested, column_values=values)])
            got = len(rows["adult"] if isinstance(rows, dict) else rows)
            reason = ""
        except Exception as error:  # noqa: BLE001 - that it fails is what is measured
            got, reason = 0, str(error)[:200]
        seconds = time.perf_counter() - began
        found[name] = {"requested": requested, "delivered": got, "rows_per_second": got / seconds, "error": reason}
    return found


def main() -> None:
    family = sys.argv[1]
    found = measure(family)
    path = kept_at(family, adult.load().path)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
