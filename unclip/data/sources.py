"""Where the illustrations come from: one row per package, obtained through its own client and read in memory.

Nothing is unpacked to disk: archives are opened with `tarfile`, and only regular members with a wanted suffix
and a sane size are read, so that links, devices and paths such as `../x` in an archive have no effect.
"""

import io
import lzma
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unclip.errors import UnclipError
from unclip.files import writing

LARGEST_MEMBER = 64 << 20
WANTED = (".json", ".svg", ".webp", ".noun", ".sense")
INSTALL = {
    "npm": "install Node.js, which brings npm (Debian: apt-get install npm)",
    "apt-get": "run on Debian or Ubuntu",
    "pip": "install pip (Debian: apt-get install python3-pip)",
}
COMMANDS = {
    "npm": "npm pack --silent {0.name}@{0.version}",
    "apt-get": "apt-get download -q {0.name}={0.version}",
    "pip": "pip download --quiet --no-deps {0.name}=={0.version}",
}


@dataclass(frozen=True)
class Package:
    """One released package. `client` is the program that downloads it: `npm`, `apt-get` or `pip`."""

    client: str
    name: str
    version: str

    @property
    def stem(self) -> str:
        """The archive's name as its client writes it, without the suffix."""
        if self.client == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}"
        if self.client == "pip":
            return f"{self.name.replace('-', '_')}-{self.version}"
        return f"{self.name}_{self.version.replace(':', '%3a')}"


@dataclass(frozen=True)
class Source:
    """One set of pictures drawn in one style.

    weight: its relative sampling weight in training. mono: drawn in one colour. trim: small drawings on large pages.
    """

    name: str
    package: Package
    style: str
    licence: str
    author: str
    weight: float = 1.0
    mono: bool = False
    trim: bool = False


def _icons(name: str, version: str, style: str, licence: str, author: str, **more) -> Source:
    return Source(name, Package("npm", f"@iconify-json/{name}", version), style, licence, author, **more)


NAMES = Package("npm", "emojibase-data", "17.0.0")

# Share-alike and GPL sets (openmoji, emojione-v1, tuxpaint stamps) and vendors' own emoji are left out on purpose:
# weights trained on this corpus are shipped. The order matters: of two identical drawings the first is kept.
SOURCES = (
    _icons("noto", "1.2.9", "noto emoji", "Apache-2.0", "Google Inc"),
    _icons("twemoji", "1.2.5", "flat twitter emoji", "CC-BY-4.0", "Twitter, Inc and other contributors"),
    _icons("fluent-emoji-flat", "1.2.6", "flat vector emoji", "MIT", "Microsoft Corporation"),
    Source(
        "fluent-emoji-3d",
        Package("npm", "@lobehub/fluent-emoji-3d", "1.1.0"),
        "glossy 3d emoji",
        "MIT",
        "Microsoft Corporation; packaged by LobeHub",
    ),
    _icons("emojione", "1.2.3", "emojione emoji", "CC-BY-4.0", "Emoji One"),
    _icons("noto-v1", "1.2.5", "blob emoji", "Apache-2.0", "Google Inc"),
    _icons("fxemoji", "1.2.2", "firefox emoji", "Apache-2.0", "Mozilla"),
    _icons("streamline-emojis", "1.2.4", "duotone emoji", "CC-BY-4.0", "Streamline"),
    _icons("streamline-ultimate-color", "1.2.2", "two-tone outline icon", "CC-BY-4.0", "Streamline"),
    _icons("streamline-freehand-color", "1.2.2", "freehand doodle", "CC-BY-4.0", "Streamline"),
    _icons("flat-color-icons", "1.2.3", "flat colour icon", "MIT", "Icons8"),
    _icons("icon-park", "1.2.4", "outline icon", "Apache-2.0", "ByteDance", weight=0.3),
    _icons("circle-flags", "1.2.11", "round flag", "MIT", "HatScripts", weight=0.3),
    _icons("game-icons", "1.2.4", "silhouette", "CC-BY-3.0", "the authors of game-icons.net", weight=0.5, mono=True),
    Source(
        "openclipart",
        Package("apt-get", "openclipart-svg", "1:0.18+dfsg-19"),
        "clip art",
        "public domain",
        "the contributors of the Open Clip Art Library",
        trim=True,
    ),
)


def named(names: Sequence[str] | None) -> tuple[Source, ...]:
    """The sources with these names, in their fixed order; all of them for None."""
    unknown = sorted(set(names or ()) - {source.name for source in SOURCES})
    if unknown:
        raise UnclipError(f"no source is called {unknown[0]!r}: choose from {', '.join(s.name for s in SOURCES)}")
    return tuple(source for source in SOURCES if names is None or source.name in names)


def obtain(package: Package, store: Path, given: Path | None = None) -> Path:
    """The archive (or unpacked folder) of `package`: from `given`, from `store`, or downloaded into `store`.

    Raises UnclipError when the client is missing or cannot deliver the package.
    """
    for folder in (given, store):
        if folder is not None and (found := _find(package, folder)):
            return found
    if shutil.which(package.client) is None:
        raise UnclipError(
            f"{package.client!r} is needed to obtain {package.name}: {INSTALL[package.client]},"
            f" or name a folder that holds {package.stem} with --from"
        )
    command = COMMANDS[package.client].format(package).split()
    with writing(store):
        store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store) as scratch:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
        if done.returncode or not (found := _find(package, Path(scratch))):
            why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise UnclipError(f"{' '.join(command)} failed: {why}", code=1)
        return found.rename(store / found.name)


def _find(package: Package, folder: Path) -> Path | None:
    if package.client == "npm":
        candidates = [f"{package.stem}.tgz", package.stem, f"node_modules/{package.name}", package.name]
        return next((folder / c for c in candidates if (folder / c).exists()), None)
    archives = sorted(folder.glob(f"{package.stem}-*.whl" if package.client == "pip" else f"{package.stem}_*.deb"))
    unpacked = folder / package.name
    return archives[0] if archives else unpacked if unpacked.is_dir() else None


def contents(path: Path) -> dict[str, bytes]:
    """The files of a package with a wanted suffix, by their path inside it (`package/` or `./` left off)."""
    if path.is_dir():
        files = (p for p in sorted(path.rglob("*")) if p.suffix in WANTED and p.is_file() and not p.is_symlink())
        found = {p.relative_to(path).as_posix(): p.read_bytes() for p in files}
    else:
        try:
            found = dict(_members(path))
        except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError) as e:
            raise UnclipError(f"{path} is not a whole package archive ({e}): delete it and run again") from e
    return {name.removeprefix("./").removeprefix("package/"): data for name, data in found.items()}


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=_debian_data(path)) if path.suffix == ".deb" else tarfile.open(path) as tar:
        for member in tar:
            if not member.isreg() or member.size > LARGEST_MEMBER or PurePosixPath(member.name).suffix not in WANTED:
                continue
            stream = tar.extractfile(member)
            if stream is not None:
                yield member.name, stream.read()


def _debian_data(path: Path) -> io.BytesIO:
    """The data.tar.* member of a .deb, which is an `ar` archive: 60-byte headers, members padded to even length."""
    with path.open("rb") as f:
        if f.read(8) != b"!<arch>\n":
            raise ValueError("no ar signature")
        while len(header := f.read(60)) == 60:
            name, size = header[:16].decode("ascii").strip(" /"), int(header[48:58])
            if name.startswith("data.tar"):
                return io.BytesIO(f.read(size))
            f.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError("no data.tar member")
