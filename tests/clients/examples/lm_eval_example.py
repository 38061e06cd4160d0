"""A multiple-choice task with data of its own, scored by the log-probabilities of the choices."""

import json
import os
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

QUESTIONS = [
    ("The capital of France is", ["Paris", "Berlin", "Madrid"], 0),
    ("Fish live in", ["trees", "water", "books"], 1),
    ("The sun rises in the", ["east", "kitchen", "pocket"], 0),
    ("Cats like to chase", ["mountains", "clouds", "mice"], 2),
]
folder = Path("tasks").resolve()
folder.mkdir(exist_ok=True)
lines = [json.dumps({"question": text, "choices": choices, "gold": gold}) for text, choices, gold in QUESTIONS]
(folder / "facts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
(folder / "facts.yaml").write_text(
    f"""task: facts
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder / "facts.jsonl"}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
""",
    encoding="utf-8",
)
url = os.environ["FASTLLM_URL"] + "/v1/completions"
results = lm_eval.simple_evaluate(
    model="local-completions",
    model_args={"model": "smol", "base_url": url, "tokenizer_backend": "remote", "num_concurrent": 2, "max_retries": 1},
    tasks=["facts"],
    task_manager=TaskManager(include_path=str(folder)),
)
accuracy = results["results"]["facts"]["acc,none"]
print("acc", accuracy)
assert accuracy >= 0.75, accuracy
