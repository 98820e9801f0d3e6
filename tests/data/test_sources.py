import io
import os
import tarfile

import pytest

from unclip.data import sources
from unclip.data.sources import NAMES, SOURCES, Package, contents, named, obtain
from unclip.errors import UnclipError

ICONS = next(s.package for s in SOURCES if s.name == "noto")
CLIPS = next(s.package for s in SOURCES if s.name == "openclipart")


def archive(path, members: dict[str, bytes], links: dict[str, tuple[bytes, str]] | None = None, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, (kind, target) in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return path


def client(folder, name: str, script: str) -> str:
    """A program that stands in for a package client; the value for PATH that finds it."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"


def test_no_share_alike_source_and_every_licence_is_stated():
    assert not {"openmoji", "emojione-v1", "tuxpaint"} & {s.name for s in SOURCES}
    assert {s.licence for s in SOURCES} == {"Apache-2.0", "MIT", "CC-BY-3.0", "CC-BY-4.0", "public domain"}


def test_archives_are_called_what_their_clients_call_them():
    assert ICONS.stem == "iconify-json-noto-1.2.9"
    assert CLIPS.stem == "openclipart-svg_1%3a0.18+dfsg-19"


def test_named():
    assert [s.name for s in named(["twemoji", "noto"])] == ["noto", "twemoji"]
    assert named(None) == SOURCES
    with pytest.raises(UnclipError, match="no source is called 'openmoji'"):
        named(["openmoji"])


@pytest.mark.parametrize("package", [NAMES, CLIPS])
def test_a_missing_client_says_what_to_install(package, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnclipError) as caught:
        obtain(package, tmp_path / "store")
    message = str(caught.value)
    assert "\n" not in message
    assert repr(package.client) in message
    assert "--from" in message
    assert package.stem in message


@pytest.mark.parametrize(
    "place",
    [
        "iconify-json-noto-1.2.9.tgz",
        "iconify-json-noto-1.2.9/x",
        "node_modules/@iconify-json/noto/x",
        "@iconify-json/noto/x",
    ],
)
def test_a_given_folder_is_used_and_nothing_downloaded(place, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    assert obtain(ICONS, tmp_path / "store", tmp_path) == (path if path.suffix else path.parent)


def test_another_version_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (tmp_path / "iconify-json-noto-1.2.8.tgz").touch()
    with pytest.raises(UnclipError, match="needed to obtain"):
        obtain(ICONS, tmp_path / "store", tmp_path)


def test_npm_downloads_once(tmp_path, monkeypatch):
    log = tmp_path / "log"
    script = f'echo "$@" >> {log}; echo data > iconify-json-noto-1.2.9.tgz'
    monkeypatch.setenv("PATH", client(tmp_path / "bin", "npm", script))
    first = obtain(ICONS, tmp_path / "store")
    assert first == tmp_path / "store" / "iconify-json-noto-1.2.9.tgz"
    assert obtain(ICONS, tmp_path / "store") == first
    assert log.read_text() == "pack --silent @iconify-json/noto@1.2.9\n"
    assert [p.name for p in (tmp_path / "store").iterdir()] == [first.name]


def test_apt_downloads(tmp_path, monkeypatch):
    script = 'touch "openclipart-svg_1%3a0.18+dfsg-19_all.deb"'
    monkeypatch.setenv("PATH", client(tmp_path / "bin", "apt-get", script))
    assert obtain(CLIPS, tmp_path / "store").name == "openclipart-svg_1%3a0.18+dfsg-19_all.deb"


def test_a_failing_client_is_quoted_in_one_line(tmp_path, monkeypatch):
    script = "echo 'npm notice' >&2; echo 'npm error 404 not found' >&2; exit 1"
    monkeypatch.setenv("PATH", client(tmp_path / "bin", "npm", script))
    with pytest.raises(UnclipError, match="npm pack .* failed: npm error 404 not found") as caught:
        obtain(ICONS, tmp_path / "store")
    assert caught.value.code == 1
    assert list((tmp_path / "store").iterdir()) == []


def test_an_unwritable_store_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", client(tmp_path / "bin", "npm", "exit 0"))
    (tmp_path / "file").touch()
    with pytest.raises(UnclipError, match="cannot write"):
        obtain(ICONS, tmp_path / "file" / "store")


def test_only_plain_members_with_known_suffixes_are_read(tmp_path, monkeypatch):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    monkeypatch.setattr(sources, "LARGEST_MEMBER", 100)
    path = archive(
        tmp_path / "a.tgz",
        {
            "package/icons.json": b"{}",
            "package/deep/cat.svg": b"<svg/>",
            "package/code.js": b"evil()",
            "package/data.pkl": b"evil",
            "package/huge.json": b"x" * 101,
        },
        {
            "package/link.json": (tarfile.SYMTYPE, str(secret)),
            "package/hard.json": (tarfile.LNKTYPE, "package/icons.json"),
            "package/device.json": (tarfile.CHRTYPE, ""),
            "package/pipe.json": (tarfile.FIFOTYPE, ""),
        },
    )
    assert contents(path) == {"icons.json": b"{}", "deep/cat.svg": b"<svg/>"}


def test_nothing_is_written_whatever_a_member_is_called(tmp_path):
    path = archive(tmp_path / "a.tgz", {"../../evil.json": b"1", "/tmp/unclip-evil.json": b"2"})
    before = sorted(tmp_path.rglob("*"))
    contents(path)
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "evil.json").exists()
    assert not os.path.exists("/tmp/unclip-evil.json")


def test_links_in_an_unpacked_folder_are_not_followed(tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "link.json").symlink_to(tmp_path / "secret.json")
    (folder / "icons.json").write_text("{}")
    assert contents(folder) == {"icons.json": b"{}"}


def test_debian_archives_need_no_debian(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    inner = archive(tmp_path / "data.tar.xz", {"./usr/share/a.svg": b"<svg/>"}, mode="w:xz").read_bytes()
    members = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": inner}
    deb = b"!<arch>\n"
    for name, data in members.items():
        deb += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    (tmp_path / "a.deb").write_bytes(deb)
    assert contents(tmp_path / "a.deb") == {"usr/share/a.svg": b"<svg/>"}


@pytest.mark.parametrize("cut", [0, 10, 60, -30])
@pytest.mark.parametrize("suffix", ["tgz", "deb"])
def test_a_damaged_archive_is_named(suffix, cut, tmp_path):
    whole = archive(tmp_path / "whole.tgz", {"package/icons.json": os.urandom(5000)}).read_bytes()
    path = tmp_path / f"package.{suffix}"
    path.write_bytes(whole[:cut])
    with pytest.raises(UnclipError, match=r"package\.(tgz|deb) is not a whole package archive"):
        contents(path)


def test_packages_are_pinned():
    for package in [NAMES, *(s.package for s in SOURCES)]:
        assert isinstance(package, Package)
        assert package.version[0].isdigit()
