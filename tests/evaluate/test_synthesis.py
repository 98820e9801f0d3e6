"""The self-training loop: what is kept, what is said of it, and that training reads it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from unclip.cli.main import main
from unclip.cli.synthesize import asked
from unclip.data import shards
from unclip.data.images import Corpus
from unclip.errors import UnclipError
from unclip.evaluate.synthesis import fits, synthesise
from unclip.pipeline import UnCLIP
from unclip.settings import Settings

FEW = Settings(size=16, steps=2, prior_steps=2)
LINES = ["thing 1, style 2", "thing 3, style 4", "style 1", "thing 2"]


def test_what_fits_is_kept_with_where_it_came_from(weights, tmp_path):
    system = UnCLIP.from_pretrained(weights)
    counted = synthesise(system, LINES, tmp_path / "all", FEW, least=-1, source="test")
    assert (counted["kept"], counted["dropped"]) == (4, 0)
    splits = [Corpus.load(tmp_path / "all", 16, split, core=True) for split in ("train", "val", "compose")]
    assert [[m["caption"] for m in c.meta] for c in splits] == [[LINES[0], LINES[3]], [LINES[1]], [LINES[2]]]
    assert splits[0].draw(0, 4, 0).captions
    metas = [m for c in splits for m in c.meta]
    made = splits[1].meta[0]["provenance"]
    assert made["digest"] == system.digest and made["seed"] == 1 and made["captions"] == "test" and made["steps"] == 2
    scores = [m["provenance"]["score"] for m in metas]
    middle = sorted(scores)[2]
    counted = synthesise(system, LINES, tmp_path / "half", FEW, least=middle - 1e-3, source="test")
    kept = [sample for folder in (tmp_path / "half" / "16").iterdir() for sample in shards.read(folder)]
    assert counted["kept"] == len(kept) == sum(s >= middle - 1e-3 for s in scores)
    with pytest.raises(UnclipError, match="choose another --out"):
        synthesise(system, LINES, tmp_path / "half", FEW, least=-1, source="test")
    with pytest.raises(UnclipError, match=r"no picture scored 1\.1"):
        synthesise(system, LINES, tmp_path / "none", FEW, least=1.1, source="test")


def test_a_picture_fits_by_the_cosine(weights):
    system = UnCLIP.from_pretrained(weights)
    picture = system.generate("thing 1", size=16, steps=2, prior_steps=2, progress=False).images[0]
    (score,) = fits(system, ["thing 1"], [picture])
    assert -1 <= score <= 1


class Server(BaseHTTPRequestHandler):
    reply = {"choices": [{"message": {"content": "- a red fox\n\n* a blue car\nthe sun"}}]}  # noqa: RUF012

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.reply).encode())

    def log_message(self, *words):
        pass


def test_captions_are_asked_for():
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        assert asked(url, "m", 2) == ["a red fox", "a blue car"]
        Server.reply = {"error": "no"}
        with pytest.raises(UnclipError, match="gave no captions"):
            asked(url, "m", 2)
    finally:
        server.shutdown()
    with pytest.raises(UnclipError, match="must begin with http"):
        asked("file:///etc/passwd", "m", 2)


def test_the_command(weights, corpus, tmp_path, capsys):
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(LINES))
    words = ["synthesize", "--captions", str(lines), "--weights", str(weights), "--least", "-1", "--steps", "2"]
    assert main([*words, "--out", str(tmp_path / "made"), "-n", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 2
    assert main(["synthesize", "--captions", str(tmp_path / "no.txt")]) == 2
    assert main(["synthesize", "--data", str(tmp_path)]) == 2
