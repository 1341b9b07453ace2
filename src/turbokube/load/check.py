"""What can be known of phases before the first begins: that their files can be used, and what they hold."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from turbokube.profile.phases import BUILT_IN, Create, Patch, Phase, Replay

from .patch import compiled
from .phase import LoadError, checked
from .replay import fitting
from .templates import Templates


def prepared(phase: Phase) -> Phase:
    """The phase with the text of its templates, and with paths that hold wherever the agent is started.

    Raises LoadError, in one sentence, for what would keep it from beginning.
    """
    checked(phase)
    try:
        match phase:
            case Create():
                phase = replace(phase, objects=tuple(replace(one, source=_text(one.template)) for one in phase.objects))
                Templates(phase)
            case Patch():
                compiled(phase.patch)
            case Replay():
                phase = fitting(replace(phase, trace=str(Path(phase.trace).expanduser().absolute())))
    except LoadError as error:
        raise LoadError(f"phase {phase.name}: {error}") from None
    except OSError as error:
        raise LoadError(f"phase {phase.name}: {error.filename} cannot be read: {error.strerror}") from None
    return phase


def groups(phase: Phase) -> set[str]:
    """API groups of what a prepared phase creates, beside the core one."""
    if not isinstance(phase, Create):
        return set()
    return {version.rpartition("/")[0] for version, _ in Templates(phase).kinds()} - {""}


def _text(template: str) -> str:
    return "" if template in BUILT_IN else Path(template).expanduser().read_text()
