"""Archives of images: every digest is that of its bytes, and the same binaries make the same archive."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
from ansible_collections.turbokube.scale.plugins.module_utils._image import Image, write_archive

REFERENCE = "registry.k8s.io/kube-scheduler:v1.36.3"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    binary = tmp_path / "kube-scheduler"
    binary.write_bytes(b"\x7fELF scheduler")
    images = [Image(REFERENCE, str(binary), []), Image("registry.k8s.io/pause:3.10.2", str(binary), ["sleep"])]
    for name in ("one.tar", "other.tar"):
        write_archive(str(tmp_path / name), images, "amd64")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "other.tar").read_bytes()
    return tmp_path / "one.tar"


def test_every_blob_is_named_by_its_digest(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        blobs = [member for member in tar if member.name.startswith("blobs/")]
        for blob in blobs:
            file = tar.extractfile(blob)
            assert file is not None
            assert blob.name == f"blobs/sha256/{hashlib.sha256(file.read()).hexdigest()}"
    assert len(blobs) == 5  # the layer is shared


def test_an_image_runs_its_binary(archive: Path) -> None:
    with tarfile.open(archive) as tar:

        def blob(digest: str) -> bytes:
            file = tar.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            assert file is not None
            return file.read()

        index = tar.extractfile("index.json")
        assert index is not None
        scheduler, pause = json.load(index)["manifests"]
        assert scheduler["annotations"]["io.containerd.image.name"] == REFERENCE
        assert scheduler["annotations"]["org.opencontainers.image.ref.name"] == "v1.36.3"
        manifest = json.loads(blob(pause["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))
        assert config["config"]["Entrypoint"] == ["/usr/local/bin/kube-scheduler", "sleep"]
        assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
        with tarfile.open(fileobj=io.BytesIO(blob(manifest["layers"][0]["digest"]))) as layer:
            member = layer.getmember("usr/local/bin/kube-scheduler")
        assert member.mode == 0o755
        assert member.size == len(b"\x7fELF scheduler")
