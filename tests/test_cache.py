"""The cache of packed weights, in processes as people start them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest

import fastllm
from fastllm import ParameterError, cache

HIDDEN, WIDTH, VOCAB = 2048, 3072, 300
LOAD = """
import json, sys, time
from fastllm import Model
begin = time.monotonic()
model = Model(sys.argv[1], threads=2, cache=sys.argv[2] == "True")
seconds = time.monotonic() - begin
logits = model.logits([5, 6, 7]).tobytes().hex()
print(json.dumps([model._weights.weights_from, logits, seconds]), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model that is large enough to be cached, and was left alone long enough."""
    path = tmp_path_factory.mktemp("models") / "large.gguf"
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(16)
    writer.add_head_count_kv(16)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"t{i}" for i in range(VOCAB - len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_token_scores([0.0] * VOCAB)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (VOCAB - 259))
    shapes = {"token_embd": (VOCAB, HIDDEN), "blk.0.ffn_down": (HIDDEN, WIDTH)}
    shapes |= {f"blk.0.attn_{name}": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{name}": (WIDTH, HIDDEN) for name in ("gate", "up")}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.standard_normal(shape, dtype=np.float32) * np.float32(0.02))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    time.sleep(3.1)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "cache"
    monkeypatch.setenv("FASTLLM_CACHE_DIR", str(path))
    return path


class Load:
    """A process that has loaded a model, and keeps it until `end`."""

    def __init__(self, path, use=True, **env):
        command = [sys.executable, "-W", "error", "-c", LOAD, str(path), str(use)]
        env = {**os.environ, **env}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.source, self.logits, self.seconds = json.loads(self.process.stdout.readline())

    def packed_pages(self):
        """Bytes of the mapped weights that are in memory, and this process's share of them."""
        found = {"Rss": 0, "Pss": 0}
        inside = False
        for line in Path(f"/proc/{self.process.pid}/smaps").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in found:
                found[name] += inside * int(rest.split()[0]) * 1024
            elif "-" in name.split()[0]:
                inside = line.endswith(".packed")
        return found["Rss"], found["Pss"]

    def end(self):
        self.process.communicate("")
        assert self.process.returncode == 0
        return self


def command(*arguments, **env):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastllm", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env},
    )
    return result.returncode, result.stdout, result.stderr


def test_a_second_load_maps_what_the_first_one_packed(large, folder):
    plain = Load(large, use=False).end()
    off = Load(large, FASTLLM_CACHE="0").end()
    none = Load(large, FASTLLM_CACHE_LIMIT="0").end()
    assert not folder.exists()
    first = Load(large).end()  # which waits until the file is on the disk
    # Without huge pages in the page cache, files are read unless something else is asked for.
    second, third = Load(large, FASTLLM_CACHE="map"), Load(large, FASTLLM_CACHE="map")
    others = [Load(large).end(), Load(large, FASTLLM_CACHE="read").end()]
    loads = [plain, off, none, first, second, third, *others]
    assert [load.source for load in loads] == ["model file"] * 3 + ["new cache"] + ["cache"] * 4
    assert len({load.logits for load in loads}) == 1
    if Path("/proc/self/smaps").exists():
        (size,) = [path.stat().st_size for path in folder.iterdir()]
        for load in (second, third):
            resident, share = load.packed_pages()
            assert resident > 0.9 * (size - 2**22)
            assert share < 0.6 * resident
    second.end()
    assert cache.clear()[0].model == large.resolve()
    assert third.end().logits == plain.logits


def test_list_verify_and_clear(large, folder):
    assert command("cache") == (0, f"folder          {folder}\n{'0 B':>10}  in all\n", "")
    assert command("bench", large, "-p", "0", "-n", "1", "-r", "1", "--no-cache")[0] == 0
    assert not folder.exists()
    assert command("bench", large, "-p", "0", "-n", "1", "-r", "1")[0] == 0
    (model,) = cache.cached_models()
    assert (model.model, model.condition, model.bytes) == (large.resolve(), "ok", model.path.stat().st_size)
    for action in ((), ("list",), ("verify",)):
        code, out, _ = command("cache", *action)
        assert code == 0
        assert out.splitlines()[1].endswith(f"  {large.resolve()}")
    code, out, _ = command("cache", "clear")
    assert (code, out.startswith("1 deleted, ")) == (0, True)
    assert list(folder.iterdir()) == []


def test_verify_deletes_what_is_damaged(large, folder):
    with fastllm.Model(large):
        pass
    end = time.monotonic() + 60
    while not (models := cache.cached_models()) or models[0].condition != "ok":
        assert time.monotonic() < end, models
        time.sleep(0.01)
    path = models[0].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    path.chmod(0o600)
    code, out, err = command("cache", "verify")
    assert (code, err) == (1, "")
    assert "(damaged)" in out
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("name", "value"), [("FASTLLM_CACHE", "maybe"), ("FASTLLM_CACHE_LIMIT", "-1")])
def test_a_variable_that_cannot_be_is_an_error(demo_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ParameterError, match=f"{name} is"):
        fastllm.Model(demo_path)
    fastllm.Model(demo_path, cache=False).close()


def test_the_embedded_model_writes_nothing(folder):
    assert command("generate", "Once", "-n", "1")[0] == 0
    assert not folder.exists()


def test_folders(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTLLM_CACHE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "darwin":
        assert cache.folder() == tmp_path / "Library/Caches/fastllm/packed"
    else:
        assert cache.folder() == tmp_path / "xdg/fastllm/packed"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert cache.folder() == tmp_path / ".cache/fastllm/packed"
