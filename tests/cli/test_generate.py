"""`unclip generate`: names, formats, what is printed, and that nothing is ever half written."""

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from unclip import metadata
from unclip.cli.generate import slug

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_one_picture(cli, few, folder):
    done = cli("generate", "a red fox", *few, "-o", folder / "fox.png", "--seed", 7)
    assert (done.code, done.out, done.err) == (0, f"{folder / 'fox.png'}\n", "")
    assert names(folder) == ["fox.png"]
    picture = metadata.read(folder / "fox.png")
    assert picture.image.size == (64, 64)
    assert (picture.record["prompt"], picture.record["seed"]) == ("a red fox", 7)
    assert picture.record["pixels"] == picture.pixels
    digest = picture.record["model"]["digest"]
    assert picture.parameters.splitlines() == [
        "a red fox",
        f"Steps: 3, Sampler: DDIM, CFG scale: 2, Seed: 7, Size: 64x64, Model hash: {digest}, Model: tiny, "
        "Version: unclip 0.1.0",
    ]
    assert os.stat(folder / "fox.png").st_mode & 0o777 == 0o644


def test_it_draws_what_python_draws(cli, few, folder, tiny_folder):
    from unclip.pipeline import UnCLIP

    cli("generate", "a red fox", *few, "-o", folder / "x.png", "--seed", 5, "-n", 2, "--size", 16, "--best-of", 3,
        "--guidance", 2, "--prior-guidance", 1.5, "--sampler", "ddpm", "--negative-prompt", "blue")  # fmt: skip
    drawn = UnCLIP.from_pretrained(tiny_folder).generate(
        "a red fox", 2, 5, size=16, best_of=3, guidance=2, prior_guidance=1.5, sampler="ddpm", negative_prompt="blue",
        steps=3, prior_steps=2, upsampler_steps=2, progress=False,
    )  # fmt: skip
    for i, image in enumerate(drawn.images):
        picture = metadata.read(folder / f"x-{i}.png")
        assert picture.pixels == metadata.pixels(image)
        assert picture.record["negative_prompt"] == "blue"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fox", "-o", "x.png"], ["x.png"]),
        (["fox", "-o", "x.png", "-n", 3], ["x-0.png", "x-1.png", "x-2.png"]),
        (["fox", "cat", "-o", "x.webp"], ["x-0.webp", "x-1.webp"]),
        (["fox", "cat", "-o", "x.jpg", "-n", 2, "--grid"], ["x.jpg"]),
        (["A Red  fox!", "一只 狐狸", "-o", "./", "--seed", 3], ["a-red-fox-3.png", "一只-狐狸-4.png"]),
        (["fox", "-o", "."], ["fox-0.png"]),
        (["fox"], ["fox-0.png"]),
        (["fox", "cat", "-o", ".", "--grid"], ["fox-0.png"]),
    ],
)
def test_names(cli, few, folder, monkeypatch, words, expected):
    monkeypatch.chdir(folder)
    done = cli("generate", *words, *few)
    assert (done.code, done.err) == (0, "")
    assert names(folder) == sorted(expected)
    assert [Path(line).name for line in done.out.splitlines()] == expected
    assert {metadata.picture_format(p) == metadata.read(p).format for p in folder.iterdir()} == {True}


@pytest.mark.parametrize(("prompt", "name"), [("../../etc/passwd", "etc-passwd"), ("!?", "picture"), ("_a_", "a"),
                                              ("x" * 500, "x" * 60), ("🦊", "picture"), ("a/b", "a-b")])  # fmt: skip
def test_a_name_is_no_path(prompt, name):
    assert slug(prompt) == name


def test_what_json_says(cli, few, folder):
    done = cli("generate", "fox", *few, "-o", folder / "x.png", "-n", 2, "--json")
    for i, line in enumerate(done.out.splitlines()):
        about = json.loads(line)
        assert about["path"] == str(folder / f"x-{i}.png")
        assert about["sha256"] == hashlib.sha256((folder / f"x-{i}.png").read_bytes()).hexdigest()
        assert (about["prompt"], about["seed"]) == ("fox", i)
        assert about["params"]["steps"] == 3
        assert about["seconds"] > 0
    assert i == 1


def test_the_same_command_writes_the_same_file(cli, few, folder):
    cli("generate", "fox", *few, "-o", folder / "x.png")
    before = (folder / "x.png").read_bytes()
    (folder / "x.png").write_bytes(b"something else")
    cli("generate", "fox", *few, "-o", folder / "x.png")
    assert (folder / "x.png").read_bytes() == before


def test_no_metadata(cli, few, folder):
    for name in ("x.png", "x.webp", "x.jpg"):
        cli("generate", "fox", *few, "-o", folder / name, "--no-metadata")
        assert b"fox" not in (folder / name).read_bytes()
        picture = metadata.read(folder / name)
        assert (picture.parameters, picture.record) == (None, None)


def test_a_sheet(cli, few, folder):
    done = cli("generate", "fox", "cat", *few, "-o", folder / "x.png", "-n", 3, "--grid", "--size", 16, "--json")
    assert len(done.out.splitlines()) == 1
    sheet = metadata.read(folder / "x.png").image
    assert sheet.size == (3 * 18 + 2, 2 * 18 + 2)  # a row for each prompt
    cli("generate", "cat", *few, "-o", folder / "y.png", "--seed", 4, "--size", 16)
    alone = metadata.read(folder / "y.png").image
    assert sheet.crop((20, 20, 36, 36)).tobytes() == alone.tobytes()


def test_previews(cli, few, folder):
    (folder / "steps").mkdir()
    cli("generate", "fox", *few, "-o", folder / "x.png", "-n", 2, "--previews", folder / "steps")
    expected = {f"x-{i}-{stage}-{k + 1:04}.png" for i in range(2) for stage, n in (("decoder", 3), ("upsampler", 2))
                for k in range(n)}  # fmt: skip
    assert set(names(folder / "steps")) == expected
    last, final = folder / "steps" / "x-1-upsampler-0002.png", folder / "x-1.png"
    assert metadata.read(last).pixels == metadata.read(final).pixels


def test_prompts_from_standard_input(cli, few, folder, monkeypatch):
    text = "\ufeffa red fox\n\n  \n一只狐狸\r\nlast".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    done = cli("generate", "first", "-", *few, "-o", folder / "x.png", "--json")
    assert [json.loads(line)["prompt"] for line in done.out.splitlines()] == ["first", "a red fox", "一只狐狸", "last"]


@pytest.mark.parametrize(("text", "message"), [(b"fox \xff", "standard input is not UTF-8 at byte 4"),
                                               (b"\n \n", "standard input holds no prompt")])  # fmt: skip
def test_standard_input_that_holds_no_prompt(cli, few, folder, monkeypatch, text, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    done = cli("generate", "-", *few, "-o", folder)
    assert (done.code, names(folder)) == (2, [])
    assert done.error.startswith(message)


def test_what_is_cut_from_a_prompt_is_told(cli, few, folder):
    done = cli("generate", "a red fox " * 30 + "end", *few, "-o", folder / "x.png")
    (line,) = done.err.splitlines()
    assert (done.code, names(folder)) == (0, ["x.png"])
    assert line.startswith("unclip: warning: a prompt is too long for these weights; left out: '")
    assert line.endswith("end'")


def test_progress_is_not_among_the_results(cli, few, folder):
    done = cli("generate", "fox", *(word for word in few if word != "--quiet"), "-o", folder / "x.png", "-n", 2)
    assert done.out.splitlines() == [str(folder / f"x-{i}.png") for i in range(2)]
    assert "0/14 " in done.err  # steps of both pictures; how often the bar is drawn anew depends on the clock


WRONG = [
    ([""], "the prompt is empty"),
    (["  "], "the prompt is empty"),
    (["fox", ""], "the prompt is empty"),
    (["fox \udcff"], "the prompt is no valid Unicode text"),
    (["x" * 5000], "the prompt has 5000 characters"),
    (["fox", "--seed", -1], "seed is -1; it must be a whole number from 0"),
    (["fox", "--seed", 2**64], "seed is 18446744073709551616"),
    (["fox", "-n", 0], "n is 0; it must be a whole number from 1"),
    (["fox", "-n", 10**9], "n is 1000000000"),
    (["fox", "--size", 100], "size is 100; these weights draw 16 or 64"),
    (["fox", "--size", -64], "size is -64"),
    (["fox", "--steps", 0], "steps is 0; it must be from 1 to 1000"),
    (["fox", "--steps", 10**9], "steps is 1000000000"),
    (["fox", "--prior-steps", -1], "prior_steps is -1"),
    (["fox", "--upsampler-steps", 0], "upsampler_steps is 0"),
    (["fox", "--guidance", "nan"], "guidance is nan; it must be from 0 to 100"),
    (["fox", "--guidance", "inf"], "guidance is inf"),
    (["fox", "--guidance", "-1"], "guidance is -1.0"),
    (["fox", "--prior-guidance", "nan"], "prior_guidance is nan"),
    (["fox", "--best-of", 0], "best_of is 0"),
    (["fox", "--sampler", "dimm"], "unknown sampler 'dimm'; did you mean 'ddim'?"),
    (["fox", "--threads", 0], "--threads is 0; it must be a whole number from 1"),
    (["fox", "--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
    (["fox", "--device", "tpu"], "device 'tpu' cannot be used here"),
    (["fox", "--weights", "no/such/folder"], "weights 'no/such/folder': is neither shipped nor a folder"),
    (["fox", "--weights", "."], "'.' holds no model_index.json"),
    (["fox", "-o", "none/x.png"], "cannot write 'none/x.png': the folder does not exist"),
    (["fox", "-o", "none/"], "cannot write 'none/fox-0.png': the folder does not exist"),
    (["fox", "-o", "file/x.png"], "cannot write 'file/x.png': a part of the path is a file"),
    (["fox", "-o", "x.gif"], "'x.gif' has no suffix of a picture"),
    (["fox", "-o", "x"], "'x' has no suffix of a picture"),
    (["fox", "-o", "taken.png"], "cannot write 'taken.png': it is a folder"),
    (["fox", "-o", "y" * 245 + ".png"], "cannot write 'yyy"),
    (["fox", "-o", "y" * 300 + ".png"], "yyy"),
    (["fox", "--weights", "y" * 300], "yyy"),
    (["fox", "-o", "/proc/x.png"], "cannot write '/proc/x.png'"),
    (["fox", "--previews", "none"], "cannot write 'none/x.png': the folder does not exist"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[str(words)[:50] for words, _ in WRONG])
def test_what_cannot_be_drawn(cli, few, folder, monkeypatch, words, message):
    """One line, exit status 2, before anything is drawn; nothing is written."""
    monkeypatch.chdir(folder)
    (folder / "file").touch()
    (folder / "taken.png").mkdir()
    done = cli("generate", *few, *words)
    assert (done.code, done.out) == (2, "")
    assert done.error.startswith(message)
    assert names(folder) == ["file", "taken.png"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: (w / "prior" / "model.safetensors").write_bytes(b"PK\3\4 a pickle of torch.save"), "is damaged"),
        (lambda w: (w / "model_index.json").write_text("[]"), "is damaged: it holds no JSON object"),
        (lambda w: (w / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}'), "no index of unclip's"),
        (lambda w: (w / "tokenizer" / "tokenizer.json").unlink(), "lacks tokenizer/tokenizer.json"),
    ],
)
def test_weights_that_cannot_be_used(cli, few, folder, tiny_folder, tmp_path, damage, message):
    import shutil

    damage(shutil.copytree(tiny_folder, tmp_path / "weights"))
    done = cli("generate", "fox", *few, "-o", folder / "x.png", "--weights", tmp_path / "weights")
    assert (done.code, names(folder)) == (2, [])
    assert message in done.error


def test_an_unknown_name_of_weights(cli, folder, tiny_folder, monkeypatch):
    monkeypatch.setattr("unclip.weights.hub.SHIPPED", tiny_folder.parent)
    done = cli("generate", "fox", "-o", folder / "x.png", "--weights", "tinny")
    assert done.error == "weights 'tinny': is neither shipped nor a folder; did you mean 'tiny'?"
    assert cli("generate", "fox", "-o", folder / "x.png", "--weights", "tiny", "--steps", 1, "--quiet").code == 0


def test_a_full_disk(cli, few, folder, monkeypatch):
    """The first picture is whole, of the second nothing is left."""
    calls = []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > 2:  # two for a picture: the file and its folder
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    done = cli("generate", "fox", *few, "-o", folder / "x.png", "-n", 3)
    assert (done.code, done.out) == (1, f"{folder / 'x-0.png'}\n")
    assert done.error.startswith(f"cannot write '{folder / 'x-1.png'}': the disk is full")
    assert names(folder) == ["x-0.png"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_drawing(few, folder, number):
    """Exit status 130 in one line; what is there is whole. This runs `unclip` in a process of its own."""
    words = ["generate", "fox", *few, "-o", f"{folder}/", "-n", 10_000]
    process = subprocess.Popen([sys.executable, "-m", "unclip.cli", *map(str, words)], text=True, cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "unclip: interrupted\n")
    for path in folder.iterdir():
        with Image.open(path) as image:
            image.load()
    assert {first, *out.split()} <= {str(path) for path in folder.iterdir()}


def test_a_reader_that_leaves_while_drawing(few, folder):
    words = ["generate", "fox", *few, "-o", f"{folder}/", "-n", 10_000]
    process = subprocess.Popen([sys.executable, "-m", "unclip.cli", *map(str, words)], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 1


def test_ready_to_draw_without_the_compiler(few, folder):
    """What torch brings along for its compiler costs a second; nor is the hub's client needed, nor CLIP's tokenizer."""
    words = [str(word) for word in ["generate", "fox", *few, "-o", folder / "x.png"]]
    heavy = ["torch._dynamo", "torch._inductor", "sympy", "huggingface_hub", "ftfy", "regex", "yaml"]
    code = f"import sys; from unclip.cli.main import main; main({words}); print(*{{*{heavy}}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == [str(folder / "x.png"), ""], done.stderr
