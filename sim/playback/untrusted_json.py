"""JSON texts of files that are not trusted, as what they should be. Knows pydantic; knows nothing about recordings."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def validated(model: type[Model], text: bytes) -> Model:
    """The model that a JSON text holds.

    It is parsed first: pydantic's own parser makes Python objects of the whole text anew for every field that is missing.

    Raises:
        ValueError: the text is no JSON or not of the model; the message is one line, the place and what is wrong there.
    """
    try:
        return model.model_validate(json.loads(text))
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in details["loc"])
        raise ValueError(f"{place}: {details['msg']}" if place else str(details["msg"])) from None
