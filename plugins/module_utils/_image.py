# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations

import hashlib
import io
import json
import os
import pathlib
import tarfile
import typing as t

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Image(t.NamedTuple):
    """An image of one executable, which is what it runs, and of what that needs.

    A static executable needs nothing and lies in /usr/local/bin. `files`: where each lies in the image, and where here.
    """

    reference: str
    binary: str
    arguments: list[str]
    place: str = ""
    files: tuple[tuple[str, str], ...] = ()
    environment: tuple[str, ...] = ()

    @property
    def executable(self) -> str:
        """Where the executable lies in the image."""
        return self.place or f"/usr/local/bin/{os.path.basename(self.binary)}"


def write_archive(path: str, images: list[Image], architecture: str) -> None:
    """Write an OCI layout of the images as one tar; the same binaries make the same bytes."""
    with tarfile.open(path, "w") as archive:
        seen: set[str] = set()

        def keep(name: str, data: bytes) -> None:
            if name not in seen:
                seen.add(name)
                archive.addfile(_entry(name, len(data), 0o644), io.BytesIO(data))

        def blob(media: str, data: bytes) -> dict[str, t.Any]:
            digest = hashlib.sha256(data).hexdigest()
            keep(f"blobs/sha256/{digest}", data)
            return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

        manifests = []
        for image in images:
            layer = blob(LAYER, _layer(image))
            settings = {
                "architecture": architecture,
                "os": "linux",
                "config": {"Entrypoint": [image.executable, *image.arguments], "Env": [PATH, *image.environment]},
                "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
            }
            manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": blob(CONFIG, _json(settings))}
            described = blob(MANIFEST, _json({**manifest, "layers": [layer]}))
            tag = image.reference.rpartition(":")[2]
            names = {"io.containerd.image.name": image.reference, "org.opencontainers.image.ref.name": tag}
            platform = {"architecture": architecture, "os": "linux"}
            manifests.append({**described, "platform": platform, "annotations": names})
        keep("oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        keep("index.json", _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))


def _layer(image: Image) -> bytes:
    sources = {place.lstrip("/"): source for place, source in image.files}
    sources[image.executable.lstrip("/")] = image.binary
    folders = {str(folder) for place in sources for folder in pathlib.PurePosixPath(place).parents if folder.parts}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name in sorted({"tmp", *folders}):
            folder = _entry(name, 0, 0o1777 if name == "tmp" else 0o755)
            folder.type = tarfile.DIRTYPE
            layer.addfile(folder)
        for place, source in sorted(sources.items()):
            status = os.stat(source)
            runs = status.st_mode & 0o111 or source == image.binary
            entry = _entry(place, status.st_size, 0o755 if runs else 0o644)
            if image.files:
                entry.mtime = int(status.st_mtime)  # by which Python knows whether what it compiled is of today
            with open(source, "rb") as file:
                layer.addfile(entry, file)
    return buffer.getvalue()


def _entry(name: str, size: int, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    return entry


def _json(value: t.Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
