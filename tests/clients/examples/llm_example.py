"""A prompt on the command line, with a model of a file of its own."""

import os
import subprocess
import sys
from pathlib import Path

folder = Path("llm").resolve()
folder.mkdir(exist_ok=True)
model = f"- model_id: smol\n  model_name: smol\n  api_base: {os.environ['OPENAI_BASE_URL']}\n"
(folder / "extra-openai-models.yaml").write_text(model, encoding="utf-8")
command = [sys.executable, "-m", "llm", "-m", "smol", "-o", "max_tokens", "20", "--key", "none", "Say hello."]
result = subprocess.run(
    command, check=False, env={**os.environ, "LLM_USER_PATH": str(folder)}, capture_output=True, text=True
)
assert result.returncode == 0, result.stderr
assert result.stdout.strip()
