"""Two processes, of one thread each, that ask one model together, compared with one process.

python benchmarks/bench_ranks.py --rows 0.5

Each process counts the processor seconds of its own thread, so that other load on the machine matters little; the time
of the slower of the two is compared with that of one alone. Prompts are made and tokenised in both, and a
beginning that both parts share is read twice: the ratio is at best one half.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from tables import put
from workloads import bbq_prompts, bbq_questions, llama_135m, mmlu_5_shot, shuffled, tokenizer_for

from evenhand.interfaces import Dialogue, Passage, Sampling
from evenhand.models.local import LocalModel
from evenhand.training.processes import asking_together

NEW_TOKENS = 16


def letters(rows: int) -> tuple[list[str], Callable[[LocalModel], object]]:
    """Answer questions of BBQ by letter; return the texts for the tokenizer, and the work."""
    questions = shuffled(bbq_questions(rows))
    return [q.context for q in questions], lambda model: model.choose(questions)


def few_shot(rows: int) -> tuple[list[str], Callable[[LocalModel], object]]:
    """Score options of MMLU after solved examples."""
    pairs = shuffled(mmlu_5_shot(rows))
    passages = [Passage(p.continuation, p.context) for p in pairs]
    return [p.context + p.continuation for p in pairs], lambda model: model.score(passages)


def replies(rows: int) -> tuple[list[str], Callable[[LocalModel], object]]:
    """Generate replies to prompts of BBQ."""
    texts = shuffled(bbq_prompts(rows))
    dialogues = [Dialogue(()).user(text) for text in texts]
    return texts, lambda model: model.generate(dialogues, Sampling(max_new_tokens=NEW_TOKENS))


WORKLOADS = {
    "BBQ, letters": (letters, 96),
    "MMLU 5-shot, options": (few_shot, 8),
    "BBQ, replies": (replies, 16),
}


def work(names: list[str], share: float) -> None:
    """Print one process's seconds and tokens for each workload as JSON."""
    torch.set_num_threads(1)
    found = []
    with asking_together("cpu"):
        for name in names:
            texts, run = WORKLOADS[name][0](rows_of(name, share))
            model = LocalModel(llama_135m(), tokenizer_for(texts), name="llama")
            model.score([Passage(" the start", "This is")])  # imports, and the support probe of the model
            begun, fed = time.process_time(), model.engine.tokens
            run(model)
            found.append([time.process_time() - begun, model.engine.tokens - fed])
    print(json.dumps(found))


def rows_of(name: str, share: float) -> int:
    """Return the number of rows of a workload."""
    return max(4, int(WORKLOADS[name][1] * share))


def launched(count: int, names: list[str], share: float) -> list[tuple[float, int]]:
    """Return for each workload the seconds of the slowest process, and the tokens fed to all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    known = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env = {**os.environ, **known, "WORLD_SIZE": str(count), "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, __file__, "--work", json.dumps(names), "--rows", str(share)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**env, "RANK": rank, "LOCAL_RANK": rank})
        for rank in map(str, range(count))
    ]
    said = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise RuntimeError("a process has failed")
    found = [json.loads(text.splitlines()[-1]) for text in said]
    return [(max(seconds for seconds, _ in some), sum(fed for _, fed in some)) for some in zip(*found, strict=True)]


def measure(names: list[str], share: float, times: int) -> list[dict[str, object]]:
    """Measure the rows of the table; one process and two take turns, and the fastest run of each counts."""
    runs = [(launched(1, names, share), launched(2, names, share)) for _ in range(times)]
    table: list[dict[str, object]] = []
    for n, name in enumerate(names):
        one, two = min(a[n] for a, _ in runs), min(b[n] for _, b in runs)
        table.append(
            {
                "workload": f"{name}, {rows_of(name, share)} rows",
                "1 process, s": f"{one[0]:.2f}",
                "2 processes, s": f"{two[0]:.2f}",
                "ratio": f"{two[0] / one[0]:.2f}",
                "tokens fed": f"{one[1]:,}",
                "by both": f"{two[1]:,}",
            }
        )
    return table


def main() -> None:
    """Measure the requested workloads, or do one process's part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--rows", type=float, default=1.0, help="share of the usual number of rows")
    parser.add_argument("--times", type=int, default=2, help="how often each is run")
    parser.add_argument("--work", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(json.loads(given.work), given.rows)
        return
    put("ranks", measure([n for n in WORKLOADS if given.only in n], given.rows, given.times), write=False)


if __name__ == "__main__":
    main()
